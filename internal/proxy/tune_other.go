//go:build !linux && !darwin

package proxy

import (
	"syscall"
	"time"
)

// giveUp does nothing: the system decides how long it retransmits.
func giveUp(syscall.RawConn, time.Duration) {}
