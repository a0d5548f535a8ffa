//go:build unix

package main

import (
	"os"
	"os/signal"
	"syscall"
)

// notifyHangup tells when the terminal goes away.
func notifyHangup() <-chan os.Signal {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	return hangup
}
