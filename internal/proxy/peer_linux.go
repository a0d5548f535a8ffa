package proxy

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// CheckTCP and CheckUnix report whether this system can tell which user made a connection.
const (
	CheckTCP  = true
	CheckUnix = true
)

// peerUser returns the user whose process made a connection. It does not notice if that process
// runs with another user's rights (setuid), or has passed the connection on.
func peerUser(conn net.Conn) (int, error) {
	switch conn := conn.(type) {
	case *net.UnixConn:
		raw, err := conn.SyscallConn()
		if err != nil {
			return 0, err
		}
		var peer *unix.Ucred
		var failed error
		if err := raw.Control(func(fd uintptr) { peer, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
			return 0, err
		}
		if failed != nil {
			return 0, fmt.Errorf("SO_PEERCRED: %w", failed)
		}
		return int(peer.Uid), nil
	case *net.TCPConn:
		peer, us := conn.RemoteAddr().(*net.TCPAddr).AddrPort(), conn.LocalAddr().(*net.TCPAddr).AddrPort()
		user, err := tcpUser(peer, us)
		if err == nil {
			err = stillConnected(conn)
		}
		return user, err
	}
	return 0, fmt.Errorf("a connection of type %T", conn)
}

// stillConnected returns an error if a connection was reset. Its pair of addresses is free then,
// although our descriptor is open and what came before can be read: what was found for the pair
// may be of another connection.
func stillConnected(conn *net.TCPConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var info *unix.TCPInfo
	var failed error
	if err := raw.Control(func(fd uintptr) { info, failed = unix.GetsockoptTCPInfo(int(fd), unix.SOL_TCP, unix.TCP_INFO) }); err != nil {
		return err
	}
	switch {
	case failed != nil:
		return fmt.Errorf("TCP_INFO: %w", failed)
	case info.State == unix.BPF_TCP_CLOSE:
		return errors.New("it was reset")
	}
	return nil
}

// tcpUser looks for the client's socket of an established connection. No other connection can use
// the pair of addresses before ours was reset (stillConnected), so the row that is found is the
// client's. A client may use an IPv6 socket for IPv4, as Java does.
func tcpUser(peer, us netip.AddrPort) (int, error) {
	for _, table := range []struct {
		path   string
		mapped bool
	}{{"/proc/self/net/tcp", false}, {"/proc/self/net/tcp6", true}} {
		if us.Addr().Unmap().Is6() && !table.mapped {
			continue
		}
		file, err := os.Open(table.path)
		if os.IsNotExist(err) && table.mapped {
			continue // a kernel without IPv6
		}
		if err != nil {
			return 0, err
		}
		user, found, err := findSocket(file, socketAddress(peer, table.mapped), socketAddress(us, table.mapped))
		file.Close()
		if err != nil {
			return 0, fmt.Errorf("%s: %w", table.path, err)
		}
		if found {
			return user, nil
		}
	}
	return 0, fmt.Errorf("the client's socket %s is not listed in /proc/self/net/tcp: it is closed, or in another network namespace", peer)
}

// socketAddress writes an address as /proc/net/tcp does: the words of the address in the order
// of the machine, then the port. mapped writes IPv4 as IPv6.
func socketAddress(a netip.AddrPort, mapped bool) string {
	address := a.Addr().Unmap()
	raw := address.AsSlice()
	if mapped {
		long := address.As16()
		raw = long[:]
	}
	for i := 0; i < len(raw); i += 4 {
		binary.NativeEndian.PutUint32(raw[i:], binary.BigEndian.Uint32(raw[i:]))
	}
	return strings.ToUpper(hex.EncodeToString(raw)) + fmt.Sprintf(":%04X", a.Port())
}

// established is the state of an open connection in the table. A socket that its process has
// closed has another state, and is listed without its user.
const established = "01"

// findSocket reads a table: a heading, then in each line its number, the two addresses, the
// state, three fields of queues and timers, and the user.
func findSocket(table io.Reader, local, remote string) (user int, found bool, err error) {
	lines := bufio.NewScanner(table)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 8 || fields[1] != local || fields[2] != remote || fields[3] != established {
			continue
		}
		user, err := strconv.Atoi(fields[7])
		return user, err == nil, err
	}
	return 0, false, lines.Err()
}
