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
	"sync/atomic"

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
	user, err := socketUser(conn)
	if err == nil {
		err = checkOverflow(user)
	}
	return user, err
}

func socketUser(conn net.Conn) (int, error) {
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

// overflowUser returns what the kernel calls a user who has no number in this process's user
// namespace: proc_sys_kernel(5). Where the file cannot be read it is the kernel's default.
func overflowUser() int {
	text, err := os.ReadFile("/proc/sys/kernel/overflowuid")
	if err != nil {
		return 65534
	}
	user, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 65534
	}
	return user
}

// checkOverflow returns an error if a user is the overflow user, who then is any of the users that
// this process's user namespace does not have. A proxy in a container can run as that user, nobody,
// and would take them for its own user.
func checkOverflow(user int) error {
	if user != overflowUser() {
		return nil
	}
	file, err := os.Open("/proc/self/uid_map")
	switch {
	case os.IsNotExist(err):
		return nil // a kernel without user namespaces
	case err != nil:
		return err
	}
	defer file.Close()
	if !mapsEveryUser(file) {
		return fmt.Errorf("user %d is any user that this user namespace does not have: run the proxy as another user", user)
	}
	return nil
}

// mapsEveryUser reads a uid_map, whose lines have the first user inside, the first user outside
// and how many there are.
func mapsEveryUser(uidMap io.Reader) bool {
	const users = 1<<32 - 1 // the last number is no user
	var all uint64
	lines := bufio.NewScanner(uidMap)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) != 3 {
			return false
		}
		count, err := strconv.ParseUint(fields[2], 10, 32)
		if err != nil {
			return false
		}
		all += count
	}
	return lines.Err() == nil && all == users
}

// stillConnected returns an error if a connection was reset. Another connection can then take its
// pair of addresses, although our descriptor is open and earlier bytes can still be read. So the
// user that was found for the pair may be that of the other connection.
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

// tcpUser looks for the client's socket of an established connection. Unless ours was reset
// (stillConnected), no other connection can use the pair of addresses, so the socket that it finds
// is the client's.
func tcpUser(peer, us netip.AddrPort) (int, error) {
	user, found, err := askDiag(peer, us)
	if err == nil {
		diagAnswers.Store(true)
	}
	switch {
	case found:
		return user, nil
	case err != nil && !errors.Is(err, unix.ENOENT) || !diagAnswers.Load():
		return searchTables(peer, us) // a kernel without sock_diag, or a sandbox
	}
	return 0, fmt.Errorf("the client's socket %s is not known: it is closed, or in another network namespace", peer)
}

// diagAnswers is set once askDiag has got an answer. Until then, ENOENT can mean that the kernel
// has no sock_diag.
var diagAnswers atomic.Bool

// askDiag asks the kernel for one socket by its addresses: sock_diag(7). The tables in /proc are
// slower: they list all connections of the machine, and any user can make many.
func askDiag(peer, us netip.AddrPort) (user int, found bool, err error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return 0, false, err
	}
	defer unix.Close(fd)
	// The kernel answers before Sendto returns, so a second is plenty.
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 1}); err != nil {
		return 0, false, err
	}
	kernel := &unix.SockaddrNetlink{Family: unix.AF_NETLINK}
	if err := unix.Sendto(fd, diagRequest(peer, us), 0, kernel); err != nil {
		return 0, false, err
	}
	answer := make([]byte, 1<<10)
	n, from, err := unix.Recvfrom(fd, answer, 0)
	if err != nil {
		return 0, false, err
	}
	if sender, ok := from.(*unix.SockaddrNetlink); !ok || sender.Pid != 0 {
		return 0, false, errors.New("sock_diag: an answer that is not the kernel's")
	}
	return readDiag(answer[:n], peer, us)
}

const (
	sockDiagByFamily = 20 // linux/sock_diag.h
	diagRequestSize  = unix.SizeofNlMsghdr + 8 + diagIDSize
	diagIDSize       = 48
)

// diagRequest returns a message with a struct inet_diag_req_v2 (linux/inet_diag.h): family,
// protocol, two unused bytes, a set of states, and the socket. A request for IPv4 also finds IPv6
// sockets that are used for IPv4, as Java uses them.
func diagRequest(peer, us netip.AddrPort) []byte {
	family := byte(unix.AF_INET)
	if us.Addr().Unmap().Is6() {
		family = unix.AF_INET6
	}
	b := make([]byte, 0, diagRequestSize)
	b = binary.NativeEndian.AppendUint32(b, diagRequestSize)
	b = binary.NativeEndian.AppendUint16(b, sockDiagByFamily)
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_REQUEST)
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0) // sequence, sender
	b = append(b, family, unix.IPPROTO_TCP, 0, 0)
	b = binary.NativeEndian.AppendUint32(b, 1<<unix.BPF_TCP_ESTABLISHED)
	b = binary.BigEndian.AppendUint16(b, peer.Port())
	b = binary.BigEndian.AppendUint16(b, us.Port())
	for _, one := range []netip.AddrPort{peer, us} {
		var raw [16]byte
		copy(raw[:], one.Addr().Unmap().AsSlice())
		b = append(b, raw[:]...)
	}
	b = append(b, 0, 0, 0, 0)                                        // any interface
	return append(b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff) // no cookie
}

// readDiag reads the answer: a struct inet_diag_msg, which has family, state, two bytes, the
// socket, three numbers and the user. It checks state and ports, because the kernel may answer with
// a listener on the client's port, or with a socket that its process has closed.
func readDiag(b []byte, peer, us netip.AddrPort) (user int, found bool, err error) {
	const begin, userAt = unix.SizeofNlMsghdr, unix.SizeofNlMsghdr + 4 + diagIDSize + 12
	if len(b) < begin+4 {
		return 0, false, errors.New("sock_diag: a short answer")
	}
	switch kind := binary.NativeEndian.Uint16(b[4:]); {
	case kind == unix.NLMSG_ERROR:
		if errno := -int32(binary.NativeEndian.Uint32(b[begin:])); errno != 0 {
			return 0, false, unix.Errno(errno)
		}
		return 0, false, errors.New("sock_diag: no answer")
	case kind != sockDiagByFamily || len(b) < userAt+4:
		return 0, false, fmt.Errorf("sock_diag: an answer of type %d and %d bytes", kind, len(b))
	}
	id := b[begin+4:]
	if b[begin+1] != unix.BPF_TCP_ESTABLISHED || binary.BigEndian.Uint16(id) != peer.Port() || binary.BigEndian.Uint16(id[2:]) != us.Port() {
		return 0, false, nil
	}
	return int(binary.NativeEndian.Uint32(b[userAt:])), true, nil
}

// searchTables looks for the client's socket in the tables of all sockets.
func searchTables(peer, us netip.AddrPort) (int, error) {
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
