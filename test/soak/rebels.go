//go:build linux

package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/daypass/daypass/internal/client"
)

// backendGoneWithin is how long the backend of an ended session may survive: the 5 s in which the
// session ends, and the time until the administrative login terminates the backend.
const backendGoneWithin = 12 * time.Second

// rebel is a way to keep a backend busy, and to keep its session from being ended.
type rebel struct {
	name  string
	setup []string
	send  func(r *mathrand.Rand) []byte
	deaf  bool // the client reads nothing
	idle  bool // the server waits for the client
}

const (
	endlessBody = "begin loop perform pg_sleep(0.2); end loop; end"
	rebelBody   = "begin loop begin perform pg_sleep(60); exception when query_canceled then null; end; end loop; end"
)

func functionOf(body string) []string {
	return []string{"create function pg_temp.f() returns bytea language plpgsql as $$ " + body + " $$"}
}

// padded fills the server's buffer so that, for one of six shifts, the end of the sent bytes looks
// like a ReadyForQuery.
func padded(r *mathrand.Rand) []byte {
	sql := fmt.Sprintf("select case n when 1 then decode(repeat('00', %d) || repeat('5a0000000549', 3000), 'hex') else pg_temp.f() end from generate_series(1, 2) n", r.IntN(6))
	return extendedQuery(sql)
}

func extendedQuery(sql string) []byte {
	typed := func(kind byte, body string) []byte {
		return append(binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(body)+4)), body...)
	}
	b := typed('P', "\x00"+sql+"\x00\x00\x00")
	b = append(b, typed('B', "\x00\x00\x00\x00\x00\x00\x00\x01\x00\x01")...) // with binary results
	b = append(b, typed('E', "\x00\x00\x00\x00\x00")...)
	return append(b, typed('S', "")...)
}

func simpleQuery(sql string) func(*mathrand.Rand) []byte {
	return func(*mathrand.Rand) []byte { return message('Q', sql) }
}

var rebelKinds = []rebel{
	{name: "padded", setup: functionOf(endlessBody), send: padded},
	{name: "padded and deaf to cancels", setup: functionOf(rebelBody), send: padded},
	{name: "deaf to cancels", send: simpleQuery("do $$ " + rebelBody + " $$")},
	{name: "never reading", send: simpleQuery("select repeat('x', 1000) from generate_series(1, 100000000)"), deaf: true},
	{name: "pipelined", send: func(*mathrand.Rand) []byte {
		return append(message('Q', "select 1"), message('Q', "select pg_sleep(3600)")...)
	}},
	{name: "behind a failing COPY", setup: []string{"create temp table t (n int)"}, send: func(*mathrand.Rand) []byte {
		b := append(message('Q', "copy t from stdin"), 'd', 0, 0, 0, 7, 'x', '\n', '\n')
		return append(b, message('Q', "select pg_sleep(3600)")...)
	}},
	{name: "listening", setup: []string{"listen soak_busy"}, idle: true},
}

// chatter keeps the channel busy that some rebels listen to.
func (h *hostile) chatter(ctx context.Context, r *mathrand.Rand) {
	for pause(ctx, time.Second) {
		conn, err := h.stack.superuser(ctx, database)
		if err != nil {
			continue
		}
		for err == nil && pause(ctx, between(r, 0, 20*time.Millisecond)) {
			_, err = conn.Exec(ctx, "select pg_notify('soak_busy', repeat('x', n)) from generate_series(1, 50) n")
		}
		conn.Close(context.Background())
	}
}

// rebels hold sessions that look idle and are not, or that ignore requests to end. However they
// are ended, their backends must be gone soon after.
func (h *hostile) rebels(ctx context.Context, r *mathrand.Rand) {
	operator := h.operator()
	if operator == nil {
		return
	}
	for pause(ctx, between(r, time.Second, 5*time.Second)) {
		w := wish{user: fmt.Sprintf("rebel%d", r.IntN(3)), create: true}
		if r.IntN(2) == 0 {
			w.groups = []string{groupName(r.IntN(groups))}
		}
		if p := h.issuer.issue(ctx, w); p != nil {
			h.rebel(ctx, r, operator, p, &rebelKinds[r.IntN(len(rebelKinds))])
		}
	}
}

func (h *hostile) rebel(ctx context.Context, r *mathrand.Rand, operator *client.Client, p *pass, kind *rebel) {
	begin := time.Now()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", h.stack.front.address())
	if err != nil {
		h.ledger.failed(classLogon, "a rebel's connection", begin, err)
		return
	}
	defer conn.Close()
	a := h.gate.try(p)
	if err := h.rebelLogon(conn, a, p, kind, r); err != nil {
		if ctx.Err() == nil {
			h.ledger.failed(onTheWire, "a rebel's logon ("+kind.name+")", begin, err)
		}
		return
	}
	told := make(chan string, 1) // the SQLSTATE of the last error
	if kind.deaf {
		told <- ""
	} else {
		go func() { told <- lastError(conn) }()
	}
	if !h.atWork(ctx, a.name, !kind.idle) {
		return // the session has ended for another reason
	}
	seen := h.findNamed(ctx, operator, p, a.name)
	if seen == nil {
		return
	}
	if kind.idle != (seen.State == "idle") {
		h.ledger.violate("sessions are not told right", "a session that is %s reads %q", kind.name, seen.State)
	}
	end, how := time.Now(), ""
	switch r.IntN(4) {
	case 0:
		how = "terminated"
		err = operator.Terminate(ctx, seen.ID)
	case 1:
		how = "revoked"
		_, err = operator.Revoke(ctx, client.Selector{CredentialID: seen.CredentialID})
	case 2:
		how = "reset by its client"
		reset(conn.(*net.TCPConn))
	case 3:
		how = "left by its client"
		conn.Close()
	}
	if err != nil {
		if ctx.Err() == nil {
			h.ledger.failed(everything, "ending a rebel's session", end, err)
		}
		return
	}
	h.gone(ctx, a.name, kind.name+", "+how, end)
	if kind.idle && (how == "terminated" || how == "revoked") {
		select {
		case state := <-told:
			if state == "57P01" {
				h.ledger.done(classSession, "listeners told why they end", end)
			} else if ctx.Err() == nil {
				h.ledger.failed(everything, "the last word to a listener", end, fmt.Errorf("SQLSTATE %q", state))
			}
		case <-time.After(endedWithin):
			h.ledger.failed(everything, "the last word to a listener", end, errors.New("its connection is open"))
		}
	}
}

// rebelLogon logs on, turns off the server's check that its client is connected, and begins.
func (h *hostile) rebelLogon(conn net.Conn, a *attempt, p *pass, kind *rebel, r *mathrand.Rand) error {
	_ = conn.SetDeadline(time.Now().Add(logonPatience))
	settings := []string{"user", p.logon, "database", database, "application_name", a.name}
	if h.stack.installation.Major >= 14 {
		settings = append(settings, "client_connection_check_interval", "0")
	}
	_, err := conn.Write(startupMessage(settings...))
	if err == nil {
		err = until(conn, 'R')
	}
	if err == nil {
		_, err = conn.Write(message('p', p.password))
	}
	if err == nil {
		err = until(conn, 'Z')
	}
	var said *rawError
	switch {
	case err == nil:
		h.gate.settle(a, "in")
	case errors.As(err, &said):
		h.gate.settle(a, said.code)
	}
	for _, sql := range kind.setup {
		if err == nil {
			_, err = conn.Write(message('Q', sql))
		}
		if err == nil {
			err = until(conn, 'Z')
		}
	}
	if err == nil && kind.send != nil {
		_, err = conn.Write(kind.send(r))
	}
	_ = conn.SetDeadline(time.Time{})
	return err
}

// lastError reads until the connection ends, and returns the SQLSTATE of the last error.
func lastError(conn net.Conn) (state string) {
	for {
		_, _, err := readMessage(conn)
		if said, ok := errors.AsType[*rawError](err); ok {
			state = said.code
		} else if err != nil {
			return state
		}
	}
}

// atWork waits until the session's backend is active, or, if active is false, waits for its client.
func (h *hostile) atWork(ctx context.Context, name string, active bool) bool {
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end) && pause(ctx, 100*time.Millisecond); {
		if n, err := h.count(ctx, "select count(*) from pg_stat_activity where application_name = $1 and (state = 'active') = $2", name, active); err == nil && n == 1 {
			return pause(ctx, 100*time.Millisecond) // gives its output time to pass
		}
	}
	return false
}

// gone waits until a session's backend has exited.
func (h *hostile) gone(ctx context.Context, name, how string, ended time.Time) {
	judged := false
	for pause(ctx, 50*time.Millisecond) {
		n, err := h.count(ctx, "select count(*) from pg_stat_activity where application_name = $1", name)
		switch took := time.Since(ended); {
		case err == nil && n == 0:
			if !judged {
				h.ledger.done(classSession, "backends of rebels ended", ended)
			}
			return
		case took > backendGoneWithin && !judged:
			judged = true
			// If daypass was killed, no process ends the backends that it has left.
			if !h.ledger.failed(everything, "a backend outlived its session: "+how, ended, fmt.Errorf("%v after its end", took.Round(time.Millisecond))) {
				h.endByHand(ctx, name)
				return
			}
		case judged && took > time.Minute:
			h.ledger.count("backends of rebels ended by hand after a fault", 1)
			h.endByHand(ctx, name)
			return
		}
	}
}

func (h *hostile) endByHand(ctx context.Context, name string) {
	_, _ = h.count(context.WithoutCancel(ctx), "select count(pg_terminate_backend(pid)) from pg_stat_activity where application_name = $1", name)
}

// count runs a query that returns a number, as superuser.
func (h *hostile) count(ctx context.Context, sql string, args ...any) (n int, err error) {
	conn, err := h.stack.superuser(ctx, database)
	if err != nil {
		return 0, err
	}
	defer conn.Close(context.Background())
	return n, conn.QueryRow(ctx, sql, args...).Scan(&n)
}

// refusedBy reports whether PostgreSQL itself answered with a SQLSTATE.
func refusedBy(err error, state string) bool {
	said, ok := errors.AsType[*pgconn.PgError](err)
	return ok && said.Code == state
}
