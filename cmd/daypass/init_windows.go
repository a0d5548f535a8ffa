package main

import "os"

// lendToGroup does nothing: there are no groups of files.
func lendToGroup(*os.File) error { return nil }
