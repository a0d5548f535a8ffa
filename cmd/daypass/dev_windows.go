package main

import (
	"os"
	"syscall"
)

// notifyHangup never tells: a console that is closed ends its programs.
func notifyHangup() <-chan os.Signal { return nil }

// errAddressInUse is what listening on a taken port fails with: WSAEADDRINUSE,
// which syscall.EADDRINUSE is not.
const errAddressInUse = syscall.Errno(10048)
