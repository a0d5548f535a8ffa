//go:build !linux && !darwin && !freebsd

package proxy

import (
	"errors"
	"net"
)

// CheckTCP and CheckUnix report whether this system tells whose a connection is.
const (
	CheckTCP  = false
	CheckUnix = false
)

func peerUser(net.Conn) (int, error) { return 0, errors.ErrUnsupported }
