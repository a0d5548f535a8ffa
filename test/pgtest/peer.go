package pgtest

import (
	"errors"
	"fmt"
	"io"
	"net"
	"reflect"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// Peer listens on a loopback port and plays the server's part of PostgreSQL's protocol from a
// script. It can do things that a real server does not do: stop in the middle of a message, never
// answer, or lie.
//
// A connection begins with its start-up message. Before that, the peer answers SSLRequest and
// GSSENCRequest with 'N'. Then it picks the connection's script and runs it. A client that does not
// follow the script fails the test.
type Peer struct {
	t        testing.TB
	listener net.Listener
	pick     func(n int, startup pgproto3.FrontendMessage) Script
	sessions atomic.Int64  // connections that began with a start-up message
	ended    chan struct{} // closed at the end of the test
	running  sync.WaitGroup
}

// Script is what a Peer does in one connection. At its end the Peer closes the connection.
type Script []Step

// Step is one step of a Script.
type Step struct {
	name string
	do   func(*session) error
}

type session struct {
	conn    net.Conn
	backend *pgproto3.Backend
	peer    *Peer
}

// patience is how long a Peer waits for the other end. A script that does not go as the test
// expects fails after that time instead of hanging.
const patience = 30 * time.Second

// errOver ends a script early without failing the test.
var errOver = errors.New("script over")

// NewPeer starts a peer, which stops at the end of the test. pick gets the number of the session,
// from 0, and its start-up message, a *pgproto3.StartupMessage. For cancel requests, which clients
// also send when a session breaks off, it gets -1 and a *pgproto3.CancelRequest. It is called from
// the goroutines of the connections.
func NewPeer(t testing.TB, pick func(n int, startup pgproto3.FrontendMessage) Script) *Peer {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Peer{t: t, listener: listener, pick: pick, ended: make(chan struct{})}
	p.running.Go(p.accept)
	t.Cleanup(func() {
		close(p.ended)
		listener.Close()
		p.running.Wait()
	})
	return p
}

// Always returns a pick function with one script for every session. It ignores cancel requests.
func Always(steps ...Step) func(int, pgproto3.FrontendMessage) Script {
	return func(n int, _ pgproto3.FrontendMessage) Script {
		if n < 0 {
			return nil
		}
		return steps
	}
}

// InTurn returns a pick function with a script for each session in turn. It closes further
// sessions, and ignores cancel requests.
func InTurn(scripts ...Script) func(int, pgproto3.FrontendMessage) Script {
	return func(n int, _ pgproto3.FrontendMessage) Script {
		if n >= 0 && n < len(scripts) {
			return scripts[n]
		}
		return nil
	}
}

// Addr returns the peer's address, host and port.
func (p *Peer) Addr() string { return p.listener.Addr().String() }

// Host returns the host that the peer listens on.
func (p *Peer) Host() string { return "127.0.0.1" }

// Port returns the port that the peer listens on.
func (p *Peer) Port() int { return p.listener.Addr().(*net.TCPAddr).Port }

// ConnString returns the URL of a database at the peer.
func (p *Peer) ConnString(user, database string) string {
	return "postgres://" + user + "@" + net.JoinHostPort(p.Host(), strconv.Itoa(p.Port())) + "/" + database + "?sslmode=disable"
}

func (p *Peer) accept() {
	for {
		conn, err := p.listener.Accept()
		if err != nil {
			return // the listener is closed
		}
		p.running.Go(func() { p.play(conn) })
	}
}

func (p *Peer) play(conn net.Conn) {
	defer conn.Close()
	over := make(chan struct{})
	defer close(over)
	p.running.Go(func() {
		select {
		case <-p.ended:
			conn.Close()
		case <-over:
		}
	})
	_ = conn.SetDeadline(time.Now().Add(patience)) // fails only on a closed connection
	s := &session{conn: conn, backend: pgproto3.NewBackend(conn, conn), peer: p}
	startup, err := s.startup()
	if err != nil {
		return // the client sent no start-up message
	}
	n := -1
	if _, ok := startup.(*pgproto3.StartupMessage); ok {
		n = int(p.sessions.Add(1)) - 1
	}
	for i, step := range p.pick(n, startup) {
		err := step.do(s)
		if errors.Is(err, errOver) || p.over() {
			return
		}
		if err != nil {
			p.t.Errorf("pgtest: session %d, step %d (%s): %v", n, i, step.name, err)
			return
		}
	}
}

func (p *Peer) over() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

func (s *session) startup() (pgproto3.FrontendMessage, error) {
	for {
		msg, err := s.backend.ReceiveStartupMessage()
		if err != nil {
			return nil, err
		}
		switch msg.(type) {
		case *pgproto3.SSLRequest, *pgproto3.GSSEncRequest:
			if _, err := s.conn.Write([]byte{'N'}); err != nil {
				return nil, err
			}
		default:
			return msg, nil
		}
	}
}

// Accept lets the client in without a password, as a server of the given version, and ends with
// ReadyForQuery.
func Accept(serverVersion string) Step {
	step := Send(
		&pgproto3.AuthenticationOk{},
		&pgproto3.ParameterStatus{Name: "server_version", Value: serverVersion},
		&pgproto3.ParameterStatus{Name: "client_encoding", Value: "UTF8"},
		&pgproto3.ParameterStatus{Name: "standard_conforming_strings", Value: "on"},
		&pgproto3.BackendKeyData{ProcessID: 4711, SecretKey: []byte{1, 2, 3, 4}},
		&pgproto3.ReadyForQuery{TxStatus: 'I'},
	)
	step.name = "accept"
	return step
}

// Send sends messages.
func Send(messages ...pgproto3.BackendMessage) Step {
	return Step{"send", func(s *session) error {
		for _, m := range messages {
			s.backend.Send(m)
		}
		return s.backend.Flush()
	}}
}

// Raw sends bytes as they are.
func Raw(b []byte) Step {
	return Step{"raw", func(s *session) error {
		_, err := s.conn.Write(b)
		return err
	}}
}

// Expect receives a message, which must be equal to the given one.
func Expect(want pgproto3.FrontendMessage) Step {
	return Step{fmt.Sprintf("expect %T", want), func(s *session) error {
		got, err := s.backend.Receive()
		if err != nil {
			return err
		}
		if !reflect.DeepEqual(got, want) {
			return fmt.Errorf("got %#v, want %#v", got, want)
		}
		return nil
	}}
}

// Password asks for a cleartext password and hands it to check.
func Password(check func(password string) error) Step {
	return Step{"password", func(s *session) error {
		s.backend.Send(&pgproto3.AuthenticationCleartextPassword{})
		if err := s.backend.Flush(); err != nil {
			return err
		}
		if err := s.backend.SetAuthType(pgproto3.AuthTypeCleartextPassword); err != nil {
			return err
		}
		got, err := s.backend.Receive()
		if err != nil {
			return err
		}
		password, ok := got.(*pgproto3.PasswordMessage)
		if !ok {
			return fmt.Errorf("got %#v, want a password", got)
		}
		return check(password.Password)
	}}
}

// Do calls f between two steps, to wait for the test or to report the script's progress.
func Do(f func()) Step {
	return Step{"do", func(*session) error { f(); return nil }}
}

// Answer answers every simple query with the function's messages and a
// ReadyForQuery, until the client ends the session.
func Answer(reply func(sql string) []pgproto3.BackendMessage) Step {
	return Step{"answer", func(s *session) error {
		for {
			got, err := s.backend.Receive()
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				return errOver
			}
			if err != nil {
				return err
			}
			switch m := got.(type) {
			case *pgproto3.Terminate:
				return errOver
			case *pgproto3.Query:
				for _, r := range reply(m.String) {
					s.backend.Send(r)
				}
				s.backend.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
				if err := s.backend.Flush(); err != nil {
					return err
				}
			default:
				return fmt.Errorf("got %#v, want a simple query", got)
			}
		}
	}}
}

// Silence sends nothing, and reads everything until the client hangs up or the test ends.
func Silence() Step {
	return Step{"silence", func(s *session) error {
		_ = s.conn.SetDeadline(time.Time{})
		_, _ = io.Copy(io.Discard, s.conn) // any end is fine
		return errOver
	}}
}

// Reset breaks the connection off with a TCP reset, as after a crash of the machine.
func Reset() Step {
	return Step{"reset", func(s *session) error {
		if err := s.conn.(*net.TCPConn).SetLinger(0); err != nil {
			return err
		}
		s.conn.Close()
		return errOver
	}}
}

// EOF waits until the client hangs up, with or without a Terminate message.
func EOF() Step {
	return Step{"end of the connection", func(s *session) error {
		got, err := s.backend.Receive()
		if err == nil {
			if _, ok := got.(*pgproto3.Terminate); ok {
				return nil
			}
			return fmt.Errorf("got %#v, want the end", got)
		}
		if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
			return err
		}
		return nil
	}}
}

// Endless sends bytes over and over until the other end hangs up or a gigabyte has been sent. It
// calls note with the number of bytes sent.
func Endless(b []byte, note func(n int)) Step {
	return Step{"endless", func(s *session) error {
		for sent := 0; sent < 1<<30; {
			n, err := s.conn.Write(b)
			sent += n
			note(n)
			if err != nil {
				return errOver
			}
		}
		return nil
	}}
}
