package session_test

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/daypass/daypass/internal/ca"
	"github.com/daypass/daypass/internal/pgwire"
	"github.com/daypass/daypass/internal/session"
)

// line is a session and the two peers that it connects.
type line struct {
	*session.Session
	client, server net.Conn
	ended          chan session.Cause
}

var transports = []string{"TCP", "TLS", "Unix"}

// connect starts a session whose two connections are of a kind.
func connect(t *testing.T, kind string, stall time.Duration) *line {
	t.Helper()
	l := &line{ended: make(chan session.Cause, 1)}
	var ends [2]*session.Conn
	for i, peer := range []*net.Conn{&l.client, &l.server} {
		network, address := "tcp", "127.0.0.1:0"
		if kind == "Unix" {
			network, address = "unix", filepath.Join(t.TempDir(), "s")
		}
		listener, err := net.Listen(network, address)
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		near, err := net.Dial(network, listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		far, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { near.Close(); far.Close() })
		*peer, ends[i] = near, session.NewConn(far, nil)
		if kind == "TLS" {
			*peer = secure(t, near, ends[i])
		}
		_ = (*peer).SetDeadline(time.Now().Add(2 * time.Minute))
	}
	l.Session = session.New(session.Config{Client: ends[0], Upstream: ends[1], Status: pgwire.StatusIdle, HalfClose: stall, Stall: stall,
		CancelQuery: func() { below(l.server).Close() }, Ended: func(c session.Cause) { l.ended <- c }})
	l.Start()
	t.Cleanup(func() { l.End(session.Cause{Reason: "the test is over"}) })
	return l
}

// secure returns near with TLS, and does the handshake at both ends.
func secure(t *testing.T, near net.Conn, far *session.Conn) net.Conn {
	t.Helper()
	authority, err := ca.Open(t.TempDir(), []string{"localhost"}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	conn := tls.Client(near, &tls.Config{RootCAs: authority.Pool(), ServerName: "localhost"})
	handshake := make(chan error, 1)
	go func() { handshake <- conn.Handshake() }()
	if err := far.StartServerTLS(&tls.Config{GetCertificate: authority.GetCertificate, MinVersion: tls.VersionTLS13}); err != nil {
		t.Fatal(err)
	}
	if err := <-handshake; err != nil {
		t.Fatal(err)
	}
	return conn
}

// below returns the connection below TLS.
func below(c net.Conn) net.Conn {
	if secure, ok := c.(*tls.Conn); ok {
		return secure.NetConn()
	}
	return c
}

// fill writes a block again and again, and returns when the peers' sockets are full. written then
// tells how many bytes were written before the connection is closed or its deadline passes.
func fill(l *line, toClient bool, conn net.Conn, block []byte) (written chan int) {
	written = make(chan int, 1)
	go func() {
		total := 0
		for {
			n, err := conn.Write(block)
			if total += n; err != nil {
				written <- total
				return
			}
		}
	}()
	var before uint64
	for same := 0; same < 5; time.Sleep(10 * time.Millisecond) {
		up, down := l.Traffic()
		if toClient {
			up = down
		}
		if same++; up != before || up == 0 {
			before, same = up, 0
		}
	}
	return written
}

var (
	data   = pgwire.AppendMessage(nil, pgwire.MsgCopyData, bytes.Repeat([]byte("x"), 32<<10))
	copyIn = pgwire.AppendMessage(nil, pgwire.MsgCopyInResponse, []byte{0, 0, 0})
)

// hangUp closes a connection below TLS, or resets it.
func hangUp(c net.Conn, reset bool) {
	if tcp, ok := below(c).(*net.TCPConn); ok && reset {
		_ = tcp.SetLinger(0)
	}
	below(c).Close()
}

// TestClientLeavesStalledServer: a client that leaves while the server takes nothing is noticed,
// however it leaves, and also in the middle of a COPY.
func TestClientLeavesStalledServer(t *testing.T) {
	t.Parallel() // the test mostly waits
	lines := map[string]*line{}
	for _, kind := range transports {
		for how, reset := range map[string]bool{"closed": false, "reset": true} {
			for what, copying := range map[string]bool{"query": false, "COPY": true} {
				l := connect(t, kind, 50*time.Millisecond)
				pass(t, l.client, l.server, query)
				if copying {
					pass(t, l.server, l.client, copyIn)
				}
				written := fill(l, false, l.client, data)
				hangUp(l.client, reset)
				<-written
				lines[kind+", "+how+", "+what] = l
			}
		}
	}
	for name, l := range lines {
		if cause := <-l.ended; cause.Reason != session.ReasonClientGone || !cause.Imposed {
			t.Errorf("%s: the session ended with %+v", name, cause)
		}
	}
}

// TestClientOutlastsStall: a client that stays is not cut. All of its bytes arrive, and it gets
// whole messages: those of the server and, in between, one that means nothing.
func TestClientOutlastsStall(t *testing.T) {
	t.Parallel() // the test mostly waits
	for _, kind := range transports {
		for copying, want := range map[bool]byte{false: pgwire.MsgParameterStatus, true: pgwire.MsgNoticeResponse} {
			t.Run(kind, func(t *testing.T) {
				l := connect(t, kind, 50*time.Millisecond)
				pass(t, l.client, l.server, query)
				if copying {
					pass(t, l.server, l.client, copyIn)
				}
				written := fill(l, false, l.client, data)
				first := make([]byte, 3)
				if _, err := io.ReadFull(l.client, first); err != nil || first[0] != want {
					t.Fatalf("while the server took nothing, the client got %q, %v", first, err)
				}
				// The server goes on, and the client gets the rest although the server has sent nothing.
				arrived := make(chan int, 1)
				go func() {
					n, _ := io.Copy(io.Discard, l.server)
					arrived <- int(n)
				}()
				rest := make([]byte, 2)
				if _, err := io.ReadFull(l.client, rest); err != nil {
					t.Fatal(err)
				}
				body := make([]byte, binary.BigEndian.Uint32(append(first[1:], rest...))-4)
				if _, err := io.ReadFull(l.client, body); err != nil {
					t.Fatalf("the rest of the message: %v", err)
				}
				pass(t, l.server, l.client, ready)
				_ = l.client.SetWriteDeadline(time.Unix(1, 0))
				sent := <-written
				_ = below(l.client).(interface{ CloseWrite() error }).CloseWrite()
				// crypto/tls may have sent a part of the block that it reports as not written.
				if n := <-arrived; n < sent || kind != "TLS" && n != sent {
					t.Errorf("%d bytes arrived, want %d", n, sent)
				}
			})
		}
	}
}

// TestAnswerAfterStall: a server that answers in the middle of a stall finds the message of the
// gateway's own completed first.
func TestAnswerAfterStall(t *testing.T) {
	t.Parallel() // the test mostly waits
	l := connect(t, "TCP", 50*time.Millisecond)
	pass(t, l.client, l.server, query)
	fill(l, false, l.client, data)
	first := make([]byte, 1)
	if _, err := io.ReadFull(l.client, first); err != nil {
		t.Fatal(err)
	}
	if _, err := l.server.Write(row); err != nil {
		t.Fatal(err)
	}
	want := append(pgwire.AppendMessage(nil, pgwire.MsgParameterStatus, []byte("daypass.waiting_for_cluster\x00on\x00")), row...)
	got := append(first, make([]byte, len(want)-1)...)
	if _, err := io.ReadFull(l.client, got[1:]); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the client got %q (%v), want %q", got, err, want)
	}
	l.End(session.Cause{Reason: "killed", SQLState: pgwire.StateAdminShutdown, Message: "killed", Imposed: true})
	rest, _ := io.ReadAll(l.client) // whole messages, the last of which is the error
	for len(rest) > 5 && rest[0] == pgwire.MsgParameterStatus {
		rest = rest[1+binary.BigEndian.Uint32(rest[1:]):]
	}
	if len(rest) == 0 || rest[0] != pgwire.MsgErrorResponse {
		t.Errorf("at the end the client got %q", rest)
	}
	<-l.ended
}

// TestSlowIsNoStall: a peer that takes bytes slowly has not stalled, however long one write waits.
func TestSlowIsNoStall(t *testing.T) {
	t.Parallel() // the test mostly waits
	if runtime.GOOS != "linux" {
		t.Skip("only Linux tells how much a peer has taken")
	}
	for _, kind := range transports {
		t.Run(kind, func(t *testing.T) {
			l := connect(t, kind, time.Hour)
			pass(t, l.client, l.server, query)
			fill(l, false, l.client, data)
			for range 7 {
				// TCP opens its window again when a part of the buffer, which may be large, is free.
				if _, err := io.CopyN(io.Discard, l.server, 8<<20); err != nil {
					t.Fatal(err)
				}
				if _, stalled := l.Tick(false); stalled {
					t.Fatal("a server that takes bytes has stalled")
				}
			}
			for range 100 {
				if _, stalled := l.Tick(false); stalled {
					return
				}
				time.Sleep(10 * time.Millisecond) // a write may still be on its way
			}
			t.Error("a server that takes nothing has not stalled")
		})
	}
}

// TestServerGoneClientTakesNothing: the server is gone while the client takes nothing. A client that
// pauses gets everything that the server had sent.
func TestServerGoneClientTakesNothing(t *testing.T) {
	t.Parallel() // the test mostly waits
	if runtime.GOOS != "linux" {
		t.Skip("only Linux tells that a peer has closed before everything is read")
	}
	lines := map[string]*line{}
	for _, kind := range transports {
		l := connect(t, kind, 50*time.Millisecond)
		pass(t, l.client, l.server, query)
		written := fill(l, true, l.server, bytes.Repeat(row, 1000))
		_ = l.server.SetWriteDeadline(time.Unix(1, 0))
		<-written
		hangUp(l.server, true)
		lines[kind] = l
	}
	for kind, l := range lines {
		if cause := <-l.ended; cause.Reason != session.ReasonServerGone {
			t.Errorf("%s: the session ended with %+v", kind, cause)
		}
	}
	t.Run("the client pauses", func(t *testing.T) {
		l := connect(t, "TCP", time.Hour)
		pass(t, l.client, l.server, query)
		written := fill(l, true, l.server, bytes.Repeat(row, 1000))
		_ = l.server.SetWriteDeadline(time.Unix(1, 0))
		sent := <-written
		below(l.server).Close()
		got := 0
		part := make([]byte, 128<<10)
		for {
			n, err := l.client.Read(part)
			if got += n; err != nil {
				break
			}
			l.Tick(true)
		}
		if got != sent {
			t.Errorf("the client got %d bytes, want %d", got, sent)
		}
	})
}
