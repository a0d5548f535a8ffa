package main

import "os"

// notifyHangup returns nil: when a console closes, Windows ends its programs.
func notifyHangup() <-chan os.Signal { return nil }
