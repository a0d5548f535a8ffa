package proxy

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"syscall"
	"time"

	"github.com/daypass/daypass/internal/pgwire"
	"github.com/daypass/daypass/internal/session"
)

const (
	dialTime = 10 * time.Second
	// deadTime is how long a gateway may be unreachable before its sessions end: the network is
	// gone, or the machine was asleep.
	deadTime = 30 * time.Second
)

// upstream is a session at the gateway that is ready for a query.
type upstream struct {
	conn           *session.Conn
	user, database string
	greeting       []byte // for the client: AuthenticationOk to ReadyForQuery
	ahead          []byte // read after the greeting
	status         byte
	live           *liveSession
}

// logon gets a credential and logs on with it.
func (p *Proxy) logon(ctx context.Context, m *Map, database string, version uint32, params []pgwire.Param) (*upstream, error) {
	opening, cancel := context.WithTimeout(ctx, openTime)
	to, err := m.Open(opening, database)
	cancel()
	if err != nil {
		return nil, m.withDatabase(err, database)
	}
	conn, err := to.dial(ctx)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, conn.Abort)
	up, err := to.start(conn, version, params)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		conn.Abort()
		return nil, err
	}
	return up, nil
}

// withDatabase adds the database to a refusal of a credential, if the client chose it: perhaps the
// person did not.
func (m *Map) withDatabase(err error, database string) error {
	var refused *Refusal
	if m.Database != "" || !errors.As(err, &refused) || refused.SQLState != pgwire.StateInsufficientRights {
		return err
	}
	named := *refused
	named.Message = fmt.Sprintf("database \"%s\": %s", pgwire.Clip(database), refused.Message)
	named.Hint = cmp.Or(refused.Hint, "If this is not the database that you want, name yours in the connection: many clients ask for the database postgres, or for one with the name of the user, when none is entered.")
	return &named
}

// dial opens a connection and does the handshake of TLS.
func (g *Gateway) dial(ctx context.Context) (*session.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	config, err := g.TLS.config(g.Host)
	if err != nil {
		return nil, err
	}
	dialer := net.Dialer{
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: deadTime / 2, Interval: deadTime / 6, Count: 3},
		Control:         func(_, _ string, raw syscall.RawConn) error { giveUp(raw, deadTime); return nil },
	}
	tcp, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(g.Host, strconv.Itoa(g.Port)))
	if err != nil {
		return nil, refuse(pgwire.StateCannotConnect, "the gateway cannot be reached: %s", err)
	}
	deadline, _ := ctx.Deadline()
	_ = tcp.SetDeadline(deadline)
	stop := context.AfterFunc(ctx, func() { tcp.Close() })
	defer stop()
	if !g.Direct {
		answer := []byte{0}
		if _, err = tcp.Write(pgwire.AppendPacket(nil, pgwire.SSLRequest, nil)); err == nil {
			_, err = io.ReadFull(tcp, answer)
		}
		if err == nil && answer[0] != pgwire.Accepted {
			err = fmt.Errorf("%s:%d declines TLS: is it a Daypass gateway?", g.Host, g.Port)
		}
	}
	conn := session.NewConn(tcp, nil)
	if err == nil {
		err = conn.StartClientTLS(config)
	}
	if err != nil {
		tcp.Close()
		r := refuse(pgwire.StateCannotConnect, "TLS with the gateway %s:%d: %s", g.Host, g.Port, err)
		r.Hint = "sslrootcert of the map, --sslrootcert or DAYPASS_SSLROOTCERT names the gateway's CA."
		return nil, r
	}
	return conn, nil
}

// start sends the start-up message and the password, and reads up to ReadyForQuery.
func (l *Logon) start(conn *session.Conn, version uint32, params []pgwire.Param) (*upstream, error) {
	_ = conn.SetDeadline(time.Now().Add(logonTime))
	message := make([]pgwire.Param, 0, len(params)+2)
	message = append(message, pgwire.Param{Name: "user", Value: l.User}, pgwire.Param{Name: "database", Value: l.Database})
	for _, one := range params {
		if one.Name != "user" && one.Name != "database" {
			message = append(message, one)
		}
	}
	lost := func(err error) error {
		return refuse(pgwire.StateConnectionFailure, "the gateway %s:%d, while logging on: %s", l.Host, l.Port, err)
	}
	if _, err := conn.Write(pgwire.AppendStartup(nil, version, message)); err != nil {
		return nil, lost(err)
	}
	up := &upstream{conn: conn, user: l.User, database: l.Database, live: &liveSession{gateway: l.Gateway}}
	in := pgwire.NewReader(conn)
	var opening pgwire.Opening
	asked := false
	for {
		kind, body, err := in.Admitted(opening.Admit)
		if err != nil {
			return nil, lost(err)
		}
		switch kind {
		case pgwire.MsgErrorResponse:
			f := pgwire.ParseErrorFields(body)
			return nil, &Refusal{SQLState: f.SQLState, Message: f.Message, Detail: f.Detail, Hint: f.Hint}
		case pgwire.MsgAuthentication:
			switch code := binary.BigEndian.Uint32(body); {
			case code == pgwire.AuthOK:
				opening.Authenticated()
			case code == pgwire.AuthCleartextPassword && !asked:
				asked = true
				if _, err := conn.Write(pgwire.AppendMessage(nil, pgwire.MsgPassword, pgwire.AppendString(nil, l.Password))); err != nil {
					return nil, lost(err)
				}
				continue
			default:
				return nil, lost(fmt.Errorf("it asks for authentication %d: is it a Daypass gateway?", code))
			}
		case pgwire.MsgBackendKeyData:
			up.live.key = append([]byte(nil), body...)
		case pgwire.MsgReadyForQuery:
			up.status = body[0]
		}
		up.greeting = pgwire.AppendMessage(up.greeting, kind, body)
		if opening.Ready() {
			up.ahead = in.Rest()
			return up, nil
		}
	}
}

// cancelQuery carries out a client's cancel request. The client waits for the end of its
// connection, which comes when the gateway has the request.
func (p *Proxy) cancelQuery(o *port, key []byte) {
	o.mu.Lock()
	live := o.live[string(key)]
	o.mu.Unlock()
	if live == nil {
		return // its session has ended
	}
	if err := live.cancel(); err != nil {
		p.log.Warn("cancel request not delivered", "port", o.address, "err", err)
	}
}

func (l *liveSession) cancel() error {
	if l.key == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), cancelTime)
	defer cancel()
	conn, err := l.gateway.dial(ctx)
	if err != nil {
		return err
	}
	defer conn.Abort()
	deadline, _ := ctx.Deadline()
	_ = conn.SetDeadline(deadline)
	if _, err := conn.Write(pgwire.AppendPacket(nil, pgwire.CancelRequest, l.key)); err != nil {
		return err
	}
	var end [1]byte
	if _, err := conn.Read(end[:]); err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, syscall.ECONNRESET) {
		return err
	}
	return nil
}
