package session_test

import (
	"bytes"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/daypass/daypass/internal/pgwire"
	"github.com/daypass/daypass/internal/session"
)

var (
	query = pgwire.AppendMessage(nil, pgwire.MsgQuery, []byte("select 1\x00"))
	row   = pgwire.AppendMessage(nil, pgwire.MsgDataRow, []byte("a row of data"))
	ready = pgwire.AppendMessage(nil, pgwire.MsgReadyForQuery, []byte{pgwire.StatusIdle})
)

// peers are a session and its two ends, client and server.
type peers struct {
	*session.Session
	t              *testing.T
	client, server *net.TCPConn
	cancelled      chan struct{}
	ended          chan session.Cause
}

// start starts a session over sockets.
func start(t *testing.T, halfClose time.Duration) *peers {
	p := &peers{t: t, cancelled: make(chan struct{}, 9), ended: make(chan session.Cause, 9)}
	var ends [2]*session.Conn
	p.client, ends[0] = pair(t)
	p.server, ends[1] = pair(t)
	p.Session = session.New(session.Config{
		Client: ends[0], Upstream: ends[1], Status: pgwire.StatusIdle, HalfClose: halfClose,
		CancelQuery: func() { p.cancelled <- struct{}{} }, Ended: func(c session.Cause) { p.ended <- c },
	})
	p.Start()
	return p
}

func pair(t *testing.T) (peer *net.TCPConn, ours *session.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	near, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close(); far.Close() })
	_ = near.SetDeadline(time.Now().Add(30 * time.Second))
	return near.(*net.TCPConn), session.NewConn(far, nil)
}

// pass sends b from one peer and reads it at the other.
func (p *peers) pass(from, to *net.TCPConn, b []byte) {
	p.t.Helper()
	if _, err := from.Write(b); err != nil {
		p.t.Fatal(err)
	}
	got := make([]byte, len(b))
	if _, err := io.ReadFull(to, got); err != nil || !bytes.Equal(got, b) {
		p.t.Fatalf("passed on %q (%v), want %q", got, err, b)
	}
}

// pass sends b over one connection and reads it from another.
func pass(t *testing.T, from, to net.Conn, b []byte) {
	t.Helper()
	if _, err := from.Write(b); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(b))
	if _, err := io.ReadFull(to, got); err != nil || !bytes.Equal(got, b) {
		t.Fatalf("passed on %q (%v), want %q", got, err, b)
	}
}

// TestStateTable causes each event of the table in session.go. It checks the client's last
// message, whether the query was cancelled, and the cause.
func TestStateTable(t *testing.T) {
	kill := session.Cause{Reason: "killed", SQLState: pgwire.StateAdminShutdown, Message: "killed", Imposed: true}
	for _, row := range []struct {
		name   string
		events func(p *peers)
		told   string // everything that the client reads; "FATAL" stands for an ErrorResponse
		cancel bool
		want   session.Cause
	}{
		{"the client closes, the server answers and closes", func(p *peers) {
			p.pass(p.client, p.server, query)
			_ = p.client.CloseWrite()
			rest, _ := io.ReadAll(p.server)
			if len(rest) > 0 {
				p.t.Errorf("the server got %q", rest)
			}
			p.pass(p.server, p.client, ready)
			p.server.Close()
		}, "", false, session.Cause{Reason: session.ReasonClientClosed}},
		{"the client closes, the server is silent", func(p *peers) {
			p.pass(p.client, p.server, query)
			_ = p.client.CloseWrite()
		}, "", true, session.Cause{Reason: session.ReasonClientClosed, Imposed: true}},
		{"the client takes its leave, the server closes", func(p *peers) {
			p.pass(p.client, p.server, []byte(pgwire.Terminate))
			p.server.Close()
		}, "", false, session.Cause{Reason: session.ReasonClientClosed}},
		{"the client resets", func(p *peers) {
			p.pass(p.client, p.server, query)
			_ = p.client.SetLinger(0)
			p.client.Close()
		}, "", true, session.Cause{Reason: session.ReasonClientGone, Imposed: true}},
		{"the server closes", func(p *peers) { p.server.Close() }, "", false, session.Cause{Reason: session.ReasonServerClosed}},
		{"the server resets", func(p *peers) {
			_ = p.server.SetLinger(0)
			p.server.Close()
		}, "FATAL", false, session.Cause{Reason: session.ReasonServerGone, SQLState: pgwire.StateConnectionFailure}},
		{"a length that no message has, of the client", func(p *peers) { _, _ = p.client.Write([]byte{'Q', 0, 0, 0, 0}) },
			"FATAL", true, session.Cause{Reason: session.ReasonProtocol, SQLState: pgwire.StateProtocolViolation, Imposed: true}},
		{"a length that no message has, of the server", func(p *peers) { _, _ = p.server.Write([]byte{'D', 0, 0, 0, 0}) },
			"", true, session.Cause{Reason: session.ReasonServerGone, Imposed: true}},
		{"End", func(p *peers) { p.End(kill) }, "FATAL", true, kill},
		{"End in a message", func(p *peers) {
			p.pass(p.client, p.server, query)
			p.pass(p.server, p.client, row[:7])
			p.End(kill)
			_, _ = p.server.Write(append(bytes.Clone(row[7:]), row...)) // the second row is not passed on
		}, string(row[7:]) + "FATAL", true, kill},
		{"End in a message that is not completed", func(p *peers) {
			p.pass(p.client, p.server, query)
			p.pass(p.server, p.client, row[:7])
			p.End(kill)
		}, "", true, session.Cause{Reason: "killed", Imposed: true}},
		{"CancelAndEnd of a session that waits", func(p *peers) { p.CancelAndEnd(kill) }, "FATAL", true, kill},
		{"CancelAndEnd, the server answers", func(p *peers) {
			p.pass(p.client, p.server, query)
			p.CancelAndEnd(kill)
			<-p.cancelled
			p.cancelled <- struct{}{}
			_, _ = p.server.Write(ready)
		}, string(ready) + "FATAL", true, kill},
		{"CancelAndEnd, the server does not answer", func(p *peers) {
			p.pass(p.client, p.server, query)
			p.CancelAndEnd(kill)
		}, "FATAL", true, kill},
		{"CancelAndEnd, the client leaves meanwhile", func(p *peers) {
			p.pass(p.client, p.server, query)
			p.CancelAndEnd(kill)
			_ = p.client.SetLinger(0)
			p.client.Close()
		}, "", true, kill},
		{"Apply, a limit has passed", func(p *peers) {
			now := time.Now()
			p.Apply(session.Limits{Total: time.Hour}, now.Add(-time.Hour), now, now)
		}, "FATAL", true, session.Cause{Reason: session.ReasonTotalLimit, SQLState: pgwire.StateAdminShutdown, Imposed: true}},
		{"Apply, a limit is near", func(p *peers) {
			now := time.Now()
			p.Apply(session.Limits{AtExpiry: true, Notice: time.Minute}, now, now.Add(time.Second), now)
			notice := make([]byte, 1)
			if _, err := io.ReadFull(p.client, notice); err != nil || notice[0] != pgwire.MsgNoticeResponse {
				p.t.Errorf("notice: %q, %v", notice, err)
			}
			p.server.Close()
		}, "SNOTICE", false, session.Cause{Reason: session.ReasonServerClosed}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			p := start(t, 50*time.Millisecond)
			row.events(p)
			told, _ := io.ReadAll(p.client)
			got := <-p.ended
			if got.Reason != row.want.Reason || got.SQLState != row.want.SQLState || got.Imposed != row.want.Imposed {
				t.Errorf("cause %+v, want %+v", got, row.want)
			}
			head, fatal := strings.CutSuffix(row.told, "FATAL")
			if !strings.HasPrefix(string(told), head) && !strings.Contains(string(told), head) || fatal != strings.Contains(string(told), "SFATAL\x00") {
				t.Errorf("the client was told %q, want %q", told, row.told)
			}
			if fatal && told[len(head)] != pgwire.MsgErrorResponse {
				t.Errorf("the client was told %q, want an error after %q", told, head)
			}
			p.server.Close()
			if cancelled := len(p.cancelled) > 0; cancelled != row.cancel {
				t.Errorf("query cancelled: %v, want %v", cancelled, row.cancel)
			}
			if !p.Over() || p.End(kill) {
				t.Error("the session is not over")
			}
		})
	}
}

// TestDrainEnds: a server that sends without end does not keep the gateway reading, even without a
// deadline.
func TestDrainEnds(t *testing.T) {
	ours, peer := net.Pipe()
	defer peer.Close()
	sent := make(chan int)
	go func() {
		total, line := 0, make([]byte, 1<<14)
		for {
			n, err := peer.Write(line)
			if total += n; err != nil {
				sent <- total
				return
			}
		}
	}()
	c := session.NewConn(ours, nil)
	c.Drain()
	c.Abort()
	if got := <-sent; got > 2<<20 {
		t.Errorf("%d bytes were read", got)
	}
}
