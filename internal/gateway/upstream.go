package gateway

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/pgwire"
)

// upstream is a session with the target, logged on and ready for its first query.
type upstream struct {
	end
	settings []byte // ParameterStatus and notices as they came, for the client
	status   map[string]string
	pid      uint32
	key      []byte // cancel key; nil when the server gave none
	ready    byte   // the status of ReadyForQuery
	early    []byte // what came after ReadyForQuery
	target   *target
}

// target is one way to a server: an address, with TLS or without.
type target struct {
	network, address string
	tls              *tls.Config // nil: plain
	direct           bool        // TLS at once, without SSLRequest
	channelBinding   string      // libpq's setting: disable, require, else prefer
	dial             pgconn.DialFunc
}

// verified reports whether the server's certificate is verified. pgconn puts
// verify-ca into VerifyPeerCertificate.
func (t *target) verified() bool {
	return t.tls != nil && (!t.tls.InsecureSkipVerify || t.tls.VerifyPeerCertificate != nil)
}

func targets(config *pgconn.Config) []*target {
	list := make([]*target, 0, 1+len(config.Fallbacks))
	add := func(host string, port uint16, tlsConfig *tls.Config) {
		t := &target{tls: tlsConfig, channelBinding: config.ChannelBinding, dial: config.DialFunc}
		t.network, t.address = pgconn.NetworkAddress(host, port)
		if t.network == "unix" {
			t.tls = nil
		}
		t.direct = t.tls != nil && config.SSLNegotiation == "direct"
		if t.dial == nil {
			t.dial = (&net.Dialer{}).DialContext
		}
		list = append(list, t)
	}
	add(config.Host, config.Port, config.TLSConfig)
	for _, f := range config.Fallbacks {
		add(f.Host, f.Port, f.TLSConfig)
	}
	return list
}

// connectError says that a host could not be reached, or broke off.
type connectError struct {
	reached bool
	address string
	err     error
}

func (e *connectError) Error() string { return e.address + ": " + e.err.Error() }
func (e *connectError) Unwrap() error { return e.err }

// connect logs on upstream as role, at the first of the cluster's hosts that
// takes the session. The deadline of ctx is shared among the hosts. An error is a
// *serverError when a server said no, else a *connectError.
func (s *Server) connect(ctx context.Context, c *Cluster, role dbuser.SessionRole, database string, params []param) (*upstream, error) {
	list := targets(c.Upstream)
	up, err := s.connectAny(ctx, c, list, role, database, params, c.TargetSessionAttrs)
	if err != nil && c.TargetSessionAttrs == "prefer-standby" {
		return s.connectAny(ctx, c, list, role, database, params, "any")
	}
	return up, err
}

func (s *Server) connectAny(ctx context.Context, c *Cluster, list []*target, role dbuser.SessionRole, database string, params []param, attrs string) (*upstream, error) {
	var first, refused error
	refusedBy := "" // the address of a server that has spoken
	list = s.silent.order(list)
	last := list[len(list)-1].address
	for i, t := range list {
		if t.address == refusedBy {
			continue // its other entry differs in TLS only
		}
		deadline, _ := ctx.Deadline()
		share := time.Until(deadline) / time.Duration(len(list)-i)
		if limit := c.Upstream.ConnectTimeout; limit > 0 && limit < share {
			share = limit
		}
		if t.address != last {
			share = min(share, silenceLimit)
		}
		up, err := s.connectTo(t, time.Now().Add(share), role, database, params)
		s.silent.note(t.address, timedOut(err))
		if err == nil {
			if err = up.accept(attrs); err == nil {
				if err = s.identify(c, up, role); err == nil {
					return up, nil
				}
			}
			up.Close()
		}
		if first == nil {
			first = err
		}
		if ctx.Err() != nil {
			break
		}
		if wrong := (*identityError)(nil); errors.As(err, &wrong) || errors.Is(err, errPasswordNotOurs) {
			refused, refusedBy = cmp.Or(refused, err), t.address
			continue
		}
		var said *serverError
		if !errors.As(err, &said) {
			continue
		}
		switch {
		case said.state == "28000" && t.tls == nil:
			// pg_hba.conf may want TLS, which is the next entry then.
			continue
		case refused == nil && slices.Contains([]string{"28000", "28P01", "3D000", "42501"}, said.state):
			// It is about who wants in, and so the answer, unless another host knows
			// more: a standby learns of a session role a little later.
			refused = said
		}
		refusedBy = t.address
	}
	return nil, cmp.Or(refused, first)
}

// connectTo logs on to one server.
func (s *Server) connectTo(t *target, deadline time.Time, role dbuser.SessionRole, database string, params []param) (*upstream, error) {
	end, err := s.reach(t, deadline)
	if err != nil {
		return nil, &connectError{address: t.address, err: err}
	}
	up := &upstream{end: end, target: t.at(end.RemoteAddr()), status: map[string]string{}}
	if err := up.logon(role, database, params); err != nil {
		up.socket.Conn.Close()
		var said *serverError
		if errors.As(err, &said) {
			return nil, said
		}
		return nil, &connectError{reached: true, address: t.address, err: err}
	}
	return up, nil
}

// reach opens a connection to t, up to and including TLS, that has a deadline.
func (s *Server) reach(t *target, deadline time.Time) (end, error) {
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	conn, err := t.dial(ctx, t.network, t.address)
	if err != nil {
		return end{}, err
	}
	s.tune(conn)
	e := end{socket: newSocket(conn, nil)}
	if err := conn.SetDeadline(deadline); err != nil {
		conn.Close()
		return end{}, err
	}
	if t.tls == nil {
		return e, nil
	}
	if err := t.startTLS(&e); err != nil {
		conn.Close()
		return end{}, err
	}
	return e, nil
}

func (t *target) startTLS(e *end) error {
	config := t.tls.Clone()
	config.DynamicRecordSizingDisabled = true
	if t.direct {
		config.NextProtos = []string{alpnProtocol}
	} else {
		request := appendUint32(appendUint32(nil, 8), codeSSLRequest)
		if _, err := e.Write(request); err != nil {
			return err
		}
		// One byte and no more: what follows it belongs to TLS.
		var answer [1]byte
		if _, err := io.ReadFull(e, answer[:]); err != nil {
			return fmt.Errorf("asking for TLS: %w", err)
		}
		if answer[0] != 'S' {
			return errors.New("server does not do TLS")
		}
	}
	conn := tls.Client(e.socket, config)
	if err := conn.Handshake(); err != nil {
		return fmt.Errorf("TLS handshake: %w", err)
	}
	if t.direct && conn.ConnectionState().NegotiatedProtocol != alpnProtocol {
		return errors.New("server did not agree on PostgreSQL's protocol (ALPN): direct TLS needs PostgreSQL 17 or later")
	}
	e.tls = conn
	return nil
}

// at is t, pinned to the server that answered: of a name with several addresses
// only one knows the session that is to be cancelled.
func (t *target) at(a net.Addr) *target {
	if a == nil || a.Network() != "tcp" || a.String() == t.address {
		return t
	}
	pinned := *t
	pinned.address = a.String()
	return &pinned
}

// logon goes from the start-up message to ReadyForQuery.
func (u *upstream) logon(role dbuser.SessionRole, database string, params []param) error {
	version := uint32(protocol30)
	if role.ServerVersion >= 180000 {
		version = protocol32 // for its longer cancel keys
	}
	packet := appendUint32(make([]byte, 0, 256), 0)
	packet = appendUint32(packet, version)
	packet = appendString(appendString(packet, "user"), role.Name)
	packet = appendString(appendString(packet, "database"), database)
	for _, p := range beginAs(role.User, params) {
		packet = appendString(appendString(packet, p.name), p.value)
	}
	packet = finish(append(packet, 0), 0)
	if len(packet) > maxStartupPacket {
		return &serverError{state: stateLimitExceeded, message: "start-up parameters are too long"}
	}
	if _, err := u.Write(packet); err != nil {
		return err
	}
	in := newReader(u.end)
	auth := authentication{password: role.Password.Reveal(), state: u.state(), target: u.target, local: isLocal(u.RemoteAddr())}
	var opening pgwire.Opening
	for {
		kind, body, err := in.admitted(opening.Admit)
		if err != nil {
			return fmt.Errorf("logging on: %w", err)
		}
		switch kind {
		case 'R':
			answer, err := auth.answer(body)
			if err != nil {
				return fmt.Errorf("%w: %w", errAuthentication, err)
			}
			if auth.done {
				opening.Authenticated()
			}
			if answer != nil {
				if _, err := u.Write(appendMessage(nil, 'p', answer)); err != nil {
					return err
				}
			}
		case 'E':
			if said := parseServerError(body); len(said.state) == 5 {
				// That a role may not log in is found out after AuthenticationOk.
				said.late = auth.done && said.routine != "InitializeSessionUserId"
				return said
			}
			return fmt.Errorf("logging on: error without SQLSTATE: %w", errMalformed)
		case 'S':
			if name, rest, ok := cutString(body); ok {
				value, _, _ := cutString(rest)
				u.status[name] = value
			}
			u.settings = appendMessage(u.settings, kind, body)
		case 'N':
			if auth.done { // before that, clients expect nothing but 'R' and 'E'
				u.settings = appendMessage(u.settings, kind, body)
			}
		case 'K':
			u.pid = binary.BigEndian.Uint32(body)
			u.key = append([]byte(nil), body[4:]...)
		case 'v': // a standby that is older than its primary
		case 'Z':
			u.ready = body[0]
			u.early = append([]byte(nil), in.rest()...)
			return nil
		}
	}
}

// beginAs has the session begin as a role, by the first of its start-up options. The
// session role has the same setting; but when that cannot be applied, since the
// session role has lost its user, the server lets the session in just the same.
func beginAs(role string, params []param) []param {
	if role == "" {
		return params
	}
	option := "-c role=" + optionEscaper.Replace(role)
	all := make([]param, 0, len(params)+1)
	for _, p := range params {
		if p.name == "options" {
			option += " " + p.value
		} else {
			all = append(all, p)
		}
	}
	return append(all, param{"options", option})
}

// optionEscaper escapes what separates the words of the start-up parameter options.
var optionEscaper = strings.NewReplacer(`\`, `\\`, " ", `\ `, "\t", "\\\t", "\n", "\\\n", "\v", "\\\v", "\f", "\\\f", "\r", "\\\r")

// accept says whether the server is of the kind that target_session_attrs wants,
// from what servers report since PostgreSQL 14, by asking otherwise.
func (u *upstream) accept(attrs string) error {
	if attrs == "" || attrs == "any" {
		return nil
	}
	standby, readOnly := u.status["in_hot_standby"], u.status["default_transaction_read_only"]
	if standby == "" {
		answers, err := u.ask("SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN 'on' ELSE 'off' END || ',' || pg_catalog.current_setting('default_transaction_read_only')")
		if err != nil {
			return &connectError{reached: true, address: u.target.address, err: err}
		}
		standby, readOnly, _ = strings.Cut(strings.Join(answers, ""), ",")
	}
	writable := standby == "off" && readOnly == "off"
	var ok bool
	switch attrs {
	case "read-write":
		ok = writable
	case "read-only":
		ok = !writable
	case "primary":
		ok = standby == "off"
	case "standby", "prefer-standby":
		ok = standby == "on"
	}
	if !ok {
		return &connectError{reached: true, address: u.target.address, err: errors.New("server is not " + attrs)}
	}
	return nil
}

// maxAnswer and maxAnswerMessages bound the answer to a question of the gateway's
// own, which is a word or two.
const (
	maxAnswer         = 64 << 10
	maxAnswerMessages = 100
)

// ask runs a query of the gateway's own and returns the first column of each row
// of each result.
func (u *upstream) ask(query string) ([]string, error) {
	if _, err := u.Write(appendMessage(nil, 'Q', appendString(nil, query))); err != nil {
		return nil, err
	}
	in := newReader(u.end)
	if len(u.early) > 0 {
		in.buf, in.w = append(u.early, in.buf...), len(u.early)
		u.early = nil
	}
	var values []string
	var failure error
	bytes := 0
	for range maxAnswerMessages {
		kind, body, err := in.message(maxAnswer - bytes)
		if err != nil {
			return nil, err
		}
		bytes += len(body)
		switch {
		case kind == 'E':
			said := parseServerError(body)
			said.late = true
			failure = said
		case kind == 'D' && len(body) >= 6:
			size := binary.BigEndian.Uint32(body[2:])
			if int64(size) > int64(len(body)-6) {
				return nil, errMalformed
			}
			values = append(values, string(body[6:6+size]))
		case kind == 'Z':
			if len(body) != 1 {
				return nil, errMalformed
			}
			u.ready, u.early = body[0], append([]byte(nil), in.rest()...)
			return values, failure
		}
	}
	return nil, errTooLong
}

// sendCancel asks the server to cancel what the session runs. As with libpq there
// is no answer; the server closing the connection says that it has acted.
func (s *Server) sendCancel(t *target, pid uint32, key []byte) error {
	if key == nil {
		return errors.New("the server gave no cancel key")
	}
	e, err := s.reach(t, time.Now().Add(5*time.Second))
	if err != nil {
		return err
	}
	defer e.socket.Conn.Close()
	request := appendUint32(nil, uint32(12+len(key)))
	request = appendUint32(appendUint32(request, codeCancelRequest), pid)
	if _, err := e.Write(append(request, key...)); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, io.LimitReader(e, 1<<10))
	return err
}

// timedOut says whether an error is a deadline's.
func timedOut(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded)
}
