package main

import "os"

// lendToGroup does nothing: files have no groups on Windows.
func lendToGroup(*os.File) error { return nil }
