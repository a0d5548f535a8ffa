package sitetest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
)

// Ports of FreeAddress. Systems choose the ports of connections, and of listeners on port 0, from a
// range above these.
const firstPort, lastPort = 20000, 32767

// reserved holds a UDP socket for each address that FreeAddress has returned. It is a package
// variable because an address is reserved until the process ends.
var reserved struct {
	mu      sync.Mutex // guards sockets
	sockets []net.PacketConn
}

// FreeAddress returns a loopback address that is not in use. No other program takes it before its
// user listens, or between two times that its user listens: the system does not choose its port for
// anyone, and a UDP socket with the same number keeps other callers of FreeAddress away, in all
// processes.
func FreeAddress() (string, error) {
	reserved.mu.Lock()
	defer reserved.mu.Unlock()
	var last error
	for range 200 {
		address := fmt.Sprintf("127.0.0.1:%d", firstPort+rand.IntN(lastPort-firstPort+1))
		socket, err := net.ListenPacket("udp", address)
		if err != nil {
			last = err
			continue
		}
		l, err := net.Listen("tcp", address)
		if err != nil {
			last = errors.Join(err, socket.Close())
			continue
		}
		reserved.sockets = append(reserved.sockets, socket)
		return address, l.Close()
	}
	return "", fmt.Errorf("no port is free: %w", last)
}
