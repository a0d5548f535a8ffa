package proxy

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/daypass/daypass/internal/pgwire"
	"github.com/daypass/daypass/internal/session"
	"github.com/daypass/daypass/internal/throttle"
)

// serve handles one connection of a client, from its first byte to its end.
func (p *Proxy) serve(o *port, conn net.Conn) {
	defer conn.Close()
	m := o.to.Load()
	log := p.log.With("to", m.Name)
	if err := p.admit(conn); err != nil {
		if write, omitted := p.strangers.Next(throttle.Stranger{}, 0, time.Now()); write {
			log.Warn("refused", "err", err, "omitted", omitted)
		}
		return
	}
	defer p.connections.Add(-1)
	crowd := p.connections.Add(1)
	_ = conn.SetDeadline(time.Now().Add(startTime))
	in := pgwire.NewReader(conn)
	version, params, err := p.greet(o, conn, in)
	if err == nil && params == nil {
		return // a cancel request
	}
	if err == nil && crowd > maxConnections {
		err = refuse(pgwire.StateTooManyConnections, "daypass proxy has %d connections, which is its limit", maxConnections)
	}
	if err != nil {
		tell(conn, err)
		log.Warn("refused", "err", err)
		return
	}
	if name := last(params, "application_name"); name != "" {
		log = log.With("application", pgwire.Clip(name))
	}
	began := time.Now()
	up, refused := p.openSession(m, conn, in, version, params)
	if refused != nil {
		tell(conn, refused)
		log.Warn("no session", "err", refused, "sqlstate", refused.SQLState)
		return
	}
	log.Info("session", "user", up.user, "database", up.database, "took", time.Since(began).Round(time.Millisecond))
	p.relay(o, conn, in, up, log)
}

// admit checks that the permitted user made the connection, where the system can tell.
func (p *Proxy) admit(conn net.Conn) error {
	known := CheckTCP
	if conn.LocalAddr().Network() == "unix" {
		known = CheckUnix
	}
	if !known {
		return nil
	}
	user, err := peerUser(conn)
	switch {
	case err != nil:
		return fmt.Errorf("cannot tell whose connection %s is: %w", conn.RemoteAddr(), err)
	case user != p.owner:
		return fmt.Errorf("the connection is of user %d, and only user %d may connect", user, p.owner)
	}
	return nil
}

// greet reads up to the start-up message. params is nil for a cancel request that was carried
// out.
func (p *Proxy) greet(o *port, conn net.Conn, in *pgwire.Reader) (version uint32, params []pgwire.Param, err error) {
	const tlsHandshake = 0x16
	var askedTLS, askedGSS bool
	for {
		first, err := in.Peek()
		switch {
		case err == nil && first == tlsHandshake:
			return 0, nil, errors.New("the client insists on TLS: give it sslmode=disable (the connection stays on this machine)")
		case err != nil && askedTLS:
			return 0, nil, fmt.Errorf("the client left when TLS was declined: give it sslmode=prefer or disable (the connection stays on this machine): %w", err)
		case err != nil:
			return 0, nil, fmt.Errorf("the client left before its start-up message: %w", err)
		}
		packet, err := in.Packet(4 + pgwire.MaxStartupPacket)
		switch {
		case errors.Is(err, pgwire.ErrTooLong):
			return 0, nil, errors.New("the client does not speak the PostgreSQL protocol")
		case err != nil:
			return 0, nil, fmt.Errorf("the client left before its start-up message: %w", err)
		}
		switch code := binary.BigEndian.Uint32(packet); {
		case code == pgwire.CancelRequest:
			p.cancelQuery(o, packet[4:])
			return 0, nil, nil
		case code == pgwire.SSLRequest && !askedTLS, code == pgwire.GSSENCRequest && !askedGSS:
			askedTLS, askedGSS = askedTLS || code == pgwire.SSLRequest, askedGSS || code == pgwire.GSSENCRequest
			if _, err := conn.Write([]byte{pgwire.Declined}); err != nil {
				return 0, nil, err
			}
		default:
			version, params, failed := pgwire.SplitStartup(packet)
			if failed != nil {
				return 0, nil, refuse(failed.SQLState, "%s", failed.Message)
			}
			if params == nil {
				return 0, nil, refuse(pgwire.StateInvalidAuthorization, "no PostgreSQL user name specified in startup packet")
			}
			return version, params, nil
		}
	}
}

// tell sends a *Refusal to the client. Other errors are not for the client.
func tell(conn net.Conn, err error) {
	r, ok := errors.AsType[*Refusal](err)
	if !ok {
		return
	}
	_ = conn.SetWriteDeadline(time.Now().Add(time.Second))
	_, _ = conn.Write(pgwire.AppendError(nil, pgwire.ErrorFields{Severity: pgwire.Fatal, SQLState: r.SQLState, Message: r.Message, Detail: r.Detail, Hint: r.Hint}))
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
}

// last returns the last value of a parameter, which is the one that counts.
func last(params []pgwire.Param, name string) (value string) {
	for _, p := range params {
		if p.Name == name {
			value = p.Value
		}
	}
	return value
}

// openSession opens the upstream session of a client.
func (p *Proxy) openSession(m *Map, conn net.Conn, in *pgwire.Reader, version uint32, params []pgwire.Param) (*upstream, *Refusal) {
	// Before the database is chosen: pg_basebackup names one that does not exist.
	if failed := pgwire.CheckReplication(params); failed != nil {
		return nil, refuse(failed.SQLState, "%s", failed.Message)
	}
	database, refused := choose(m, last(params, "database"))
	if refused != nil {
		return nil, refused
	}
	ctx, cancel := context.WithTimeout(p.ctx, openTime+logonTime)
	defer cancel()
	// A client that gives up must not leave a credential or a session behind.
	awaited := watch(conn, in, cancel)
	up, err := p.logon(ctx, m, database, version, params)
	gone := awaited()
	if err == nil && gone == nil {
		return up, nil
	}
	if err == nil {
		up.conn.Abort()
	}
	switch {
	case err != nil && p.ctx.Err() != nil:
		return nil, refuse(pgwire.StateCannotConnectNow, "daypass proxy is stopping")
	case errors.As(err, &refused):
		return nil, refused
	case gone != nil:
		return nil, refuse(pgwire.StateConnectionFailure, "the client left before it was logged on")
	default:
		return nil, refuse(pgwire.StateCannotConnect, "%s", err)
	}
}

// choose returns the database to request a credential for.
func choose(m *Map, asked string) (string, *Refusal) {
	switch {
	case m.Database == "" && asked == "":
		return "", refuse(pgwire.StateUndefinedDatabase, "%s: no database: name one in the connection", m.Name)
	case m.Database == "" || asked == m.Database:
		return asked, nil
	case asked == "":
		return m.Database, nil
	}
	r := refuse(pgwire.StateUndefinedDatabase, "database \"%s\" is not the one of this port: connect to database \"%s\"", pgwire.Clip(asked), m.Database)
	r.Hint = "A map of CLUSTER/* lets the client choose."
	return "", r
}

// watch calls cancel if the client disconnects while it waits for its session. The returned
// function ends the watch, and returns an error if the client is gone.
func watch(conn net.Conn, in *pgwire.Reader, cancel func()) func() error {
	_ = conn.SetDeadline(time.Time{})
	result := make(chan error, 1)
	go func() {
		_, err := in.Peek()
		if err != nil {
			cancel()
		}
		result <- err
	}()
	return func() error {
		_ = conn.SetReadDeadline(time.Unix(1, 0))
		err := <-result
		_ = conn.SetReadDeadline(time.Time{})
		if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
			return nil
		}
		return err
	}
}

// relay runs a session until it has ended.
func (p *Proxy) relay(o *port, conn net.Conn, in *pgwire.Reader, up *upstream, log *slog.Logger) {
	ended := make(chan session.Cause, 1)
	s := session.New(session.Config{
		Client: session.NewConn(conn, nil), Upstream: up.conn, FromClient: in.Rest(), FromUpstream: up.ahead, Status: up.status,
		HalfClose:   halfCloseTime,
		Lost:        "terminating connection because the one to the gateway was lost: connect again",
		CancelQuery: func() { _ = up.live.cancel() },
		Ended:       func(c session.Cause) { ended <- c },
	})
	key := string(up.live.key)
	p.mu.Lock()
	p.sessions[s] = true
	p.mu.Unlock()
	if key != "" {
		o.mu.Lock()
		o.live[key] = up.live
		o.mu.Unlock()
	}
	// The client may use its cancel key as soon as it has it.
	if _, err := conn.Write(up.greeting); err != nil {
		s.End(session.Cause{Reason: session.ReasonClientGone, Imposed: true, Err: err})
	}
	s.Start()
	cause := <-ended
	p.mu.Lock()
	delete(p.sessions, s)
	p.mu.Unlock()
	o.mu.Lock()
	delete(o.live, key)
	o.mu.Unlock()
	if cause.Reason != session.ReasonClientClosed && cause.Reason != session.ReasonClientGone {
		attributes := []any{"reason", cause.Reason}
		if cause.Err != nil {
			attributes = append(attributes, "err", cause.Err)
		}
		log.Warn("session ended", attributes...)
	}
}
