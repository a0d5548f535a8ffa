package main

import "os"

// notifyHangup never tells: a console that is closed ends its programs.
func notifyHangup() <-chan os.Signal { return nil }
