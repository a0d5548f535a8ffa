package proxy

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// giveUp makes a connection fail when data has not been acknowledged for the given time. It
// ignores errors.
func giveUp(raw syscall.RawConn, after time.Duration) {
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(after.Milliseconds()))
	})
}
