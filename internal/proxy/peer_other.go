//go:build !linux && !darwin && !freebsd

package proxy

import (
	"errors"
	"net"
)

// CheckTCP and CheckUnix report whether this system can tell which user made a connection.
const (
	CheckTCP  = false
	CheckUnix = false
)

func peerUser(net.Conn) (int, error) { return 0, errors.ErrUnsupported }
