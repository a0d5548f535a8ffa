//go:build darwin || freebsd

package proxy

import (
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// CheckTCP and CheckUnix report whether this system can tell which user made a connection.
const (
	CheckTCP  = false
	CheckUnix = true
)

// peerUser returns the user whose process made a connection.
func peerUser(conn net.Conn) (int, error) {
	local, ok := conn.(*net.UnixConn)
	if !ok {
		return 0, fmt.Errorf("a connection of type %T", conn)
	}
	raw, err := local.SyscallConn()
	if err != nil {
		return 0, err
	}
	var peer *unix.Xucred
	var failed error
	const solLocal = 0
	if err := raw.Control(func(fd uintptr) { peer, failed = unix.GetsockoptXucred(int(fd), solLocal, unix.LOCAL_PEERCRED) }); err != nil {
		return 0, err
	}
	if failed != nil {
		return 0, fmt.Errorf("LOCAL_PEERCRED: %w", failed)
	}
	return int(peer.Uid), nil
}
