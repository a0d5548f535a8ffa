package main

import "os"

// notifyHangup returns nil: Windows ends the programs of a console that is closed.
func notifyHangup() <-chan os.Signal { return nil }
