//go:build unix

package main

import (
	"os"
	"os/signal"
	"syscall"
)

// notifyHangup returns a channel that gets a signal when the terminal closes. From then on,
// writing to a closed output fails with an error instead of ending the process, so that dev can
// delete its files.
func notifyHangup() <-chan os.Signal {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	return hangup
}
