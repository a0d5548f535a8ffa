//go:build unix

package main

import (
	"os"
	"os/signal"
	"syscall"
)

// notifyHangup returns a channel that gets a signal when the terminal closes.
// Afterwards writing to a closed output fails with an error instead of ending the
// process, which would leave all files behind.
func notifyHangup() <-chan os.Signal {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	return hangup
}
