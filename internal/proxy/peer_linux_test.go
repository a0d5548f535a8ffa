package proxy

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestPeerUser checks which user the system names for real connections, with each kind of socket.
func TestPeerUser(t *testing.T) {
	for _, row := range []struct{ network, listen, dial string }{
		{"tcp", "127.0.0.1:0", ""}, {"tcp", "[::1]:0", ""}, {"unix", filepath.Join(t.TempDir(), "s"), ""}, {"tcp", "127.0.0.1:0", "mapped"},
	} {
		l, err := net.Listen(row.network, row.listen)
		if err != nil {
			t.Logf("%s: %v", row.listen, err) // a machine without IPv6
			continue
		}
		defer l.Close()
		client := dialRow(t, l.Addr(), row.dial == "mapped")
		defer client()
		conn, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if user, err := peerUser(conn); err != nil || user != os.Getuid() {
			t.Errorf("%v: peerUser = %d, %v, want %d", row, user, err, os.Getuid())
		}
		if row.network == "tcp" {
			// Both ways to find it, whichever this kernel takes.
			peer, us := conn.RemoteAddr().(*net.TCPAddr).AddrPort(), conn.LocalAddr().(*net.TCPAddr).AddrPort()
			if user, err := searchTables(peer, us); err != nil || user != os.Getuid() {
				t.Errorf("%v: searchTables = %d, %v, want %d", row, user, err, os.Getuid())
			}
			if user, found, err := askDiag(peer, us); !found || user != os.Getuid() {
				t.Logf("%v: NOT TESTED: askDiag = %d, %t, %v", row, user, found, err)
			}
		}
	}
}

// dialRow connects, with an IPv6 socket for IPv4 if mapped, as Java does. It returns a function
// that closes the connection.
func dialRow(t *testing.T, to net.Addr, mapped bool) func() {
	t.Helper()
	if !mapped {
		conn, err := net.Dial(to.Network(), to.String())
		if err != nil {
			t.Fatal(err)
		}
		return func() { conn.Close() }
	}
	fd, err := syscall.Socket(syscall.AF_INET6, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Skipf("no IPv6 sockets: %v", err)
	}
	address := &syscall.SockaddrInet6{Port: to.(*net.TCPAddr).Port, Addr: netip.MustParseAddr("::ffff:127.0.0.1").As16()}
	if err := syscall.Connect(fd, address); err != nil {
		t.Fatal(err)
	}
	return func() { syscall.Close(fd) }
}

func TestPeerUserOfAClosedSocket(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client := dialRow(t, l.Addr(), false)
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client()
	_, _ = conn.Read(make([]byte, 1)) // the end of the stream has arrived
	if user, err := peerUser(conn); err == nil {
		t.Errorf("peerUser = %d for a socket that is closed, want an error", user)
	}
}

const heading = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"

// FuzzFindSocket: the user of the right row is found wherever the row stands, and no other row is
// mistaken for it.
func FuzzFindSocket(f *testing.F) {
	f.Add(uint16(50000), uint16(15432), uint32(1000), uint8(1), "")
	f.Add(uint16(1), uint16(2), uint32(0), uint8(6), "   0: 0100007F:3C48 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0\n")
	f.Fuzz(func(t *testing.T, from, to uint16, user uint32, state uint8, before string) {
		peer, us := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), from), netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), to)
		local, remote := socketAddress(peer, false), socketAddress(us, false)
		row := fmt.Sprintf("   1: %s %s %02X 00000000:00000000 00:00000000 00000000 %5d        0 37 1 0\n", local, remote, state, user)
		if before != "" && !strings.HasSuffix(before, "\n") {
			before += "\n"
		}
		strange := strings.Contains(before, local) || len(before) > 1000
		got, found, err := findSocket(strings.NewReader(heading+before+row), local, remote)
		if strange {
			return
		}
		if found != (state == 1) || found && (err != nil || got != int(user)) {
			t.Fatalf("findSocket = %d, %t, %v for\n%s", got, found, err, row)
		}
		if _, found, _ := findSocket(strings.NewReader(heading+row), remote, local); found && local != remote {
			t.Fatalf("the row of the other end is found")
		}
	})
}

// TestPeerUserOfATakenPort: a client resets its connection, which frees its pair of addresses, and
// another connection takes the pair before the first one is looked up. The first connection must
// not get the second one's user, although its bytes can still be read.
func TestPeerUserOfATakenPort(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var first, second net.Conn
	for range 10 {
		client, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if first, err = l.Accept(); err != nil {
			t.Fatal(err)
		}
		defer first.Close()
		if _, err := client.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		from := client.LocalAddr()
		_ = client.(*net.TCPConn).SetLinger(0)
		client.Close()
		if client, err = (&net.Dialer{LocalAddr: from}).Dial("tcp", l.Addr().String()); err != nil {
			t.Log(err) // another program took the port first
			continue
		}
		defer client.Close()
		if second, err = l.Accept(); err != nil {
			t.Fatal(err)
		}
		defer second.Close()
		break
	}
	if second == nil {
		t.Skip("no port could be taken")
	}
	if user, err := peerUser(first); err == nil {
		t.Errorf("peerUser = %d for a connection that was reset", user)
	}
	if user, err := peerUser(second); err != nil || user != os.Getuid() {
		t.Errorf("peerUser = %d, %v for the connection that took its place", user, err)
	}
}

// TestManyConnectionsOfOthers: finding a connection's user takes no longer when the machine has
// many connections.
func TestManyConnectionsOfOthers(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	const most = 2000
	var last net.Conn
	for range most {
		client, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Skipf("not so many connections here: %v", err)
		}
		defer client.Close()
		if last, err = l.Accept(); err != nil {
			t.Skipf("not so many connections here: %v", err)
		}
		defer last.Close()
	}
	peer, us := last.RemoteAddr().(*net.TCPAddr).AddrPort(), last.LocalAddr().(*net.TCPAddr).AddrPort()
	if _, found, err := askDiag(peer, us); !found {
		t.Skipf("NOT TESTED: no sock_diag: %v", err)
	}
	fastest := time.Hour
	for try := 0; try < 5 && fastest > time.Second; try++ { // the machine may be busy
		began := time.Now()
		for range 200 {
			if user, err := peerUser(last); err != nil || user != os.Getuid() {
				t.Fatalf("peerUser = %d, %v", user, err)
			}
		}
		fastest = min(fastest, time.Since(began))
	}
	if fastest > time.Second {
		t.Errorf("200 look-ups among %d connections took %v", most, fastest)
	}
}

func TestMapsEveryUser(t *testing.T) {
	for text, want := range map[string]bool{
		"         0          0 4294967295\n":  true,
		"0 0 65534\n65534 65534 4294901761\n": true,
		"65534 0 1\n":                         false,
		"0 1000 1\n1 100000 65536\n":          false,
		"":                                    false,
		"0 0\n":                               false,
		"0 0 -1\n":                            false,
		"0 0 99999999999\n":                   false,
	} {
		if got := mapsEveryUser(strings.NewReader(text)); got != want {
			t.Errorf("mapsEveryUser(%q) = %v, want %v", text, got, want)
		}
	}
}
