//go:build unix

package main

import (
	"os"
	"os/signal"
	"syscall"
)

// notifyHangup tells when the terminal goes away. From then on a standard output
// that nobody reads is an error of the write to it, in place of the end of the
// process, which would leave everything lying about.
func notifyHangup() <-chan os.Signal {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	return hangup
}
