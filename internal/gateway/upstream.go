package gateway

import (
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
	"github.com/daypass/daypass/internal/session"
)

// upstream is a session with the target, logged on and ready for its first query.
type upstream struct {
	*session.Conn
	settings []byte // ParameterStatus and notices as they arrived, for the client
	status   map[string]string
	pid      uint32
	key      []byte // cancel key; nil when the server gave none
	ready    byte   // the status of ReadyForQuery
	early    []byte // bytes that were read after ReadyForQuery
	answered bool   // a process of the server has, in the TLS handshake or in the authentication
	target   *target
	proven   bool // a reset has been verified in full
}

// target is one way to a server: an address, with TLS or without.
type target struct {
	network, address string
	tls              *tls.Config // nil: plain
	direct           bool        // TLS at once, without SSLRequest
	channelBinding   string      // libpq's setting: disable, require, else prefer
	certificate      bool        // the server has to ask for the client certificate (sslcertmode=require)
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
		t := &target{tls: tlsConfig, channelBinding: config.ChannelBinding, certificate: config.SSLCertMode == "require", dial: config.DialFunc}
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

// reach opens a connection to t, including TLS. The connection has the deadline of ctx.
func (s *Server) reach(ctx context.Context, t *target) (*session.Conn, error) {
	conn, err := t.dial(ctx, t.network, t.address)
	if err != nil {
		return nil, err
	}
	s.tune(conn)
	c := session.NewConn(conn, nil)
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		conn.Close()
		return nil, err
	}
	if t.tls == nil {
		if t.certificate {
			conn.Close()
			return nil, errNoCertificate
		}
		return c, nil
	}
	if err := t.startTLS(c); err != nil {
		conn.Close()
		return nil, err
	}
	return c, nil
}

// errNoCertificate means that sslcertmode=require is not met.
var errNoCertificate = errors.New("server did not ask for the client certificate, which sslcertmode=require wants")

// showing returns a TLS configuration that sets shown if the server asks for the client
// certificate.
func showing(config *tls.Config, shown *bool) *tls.Config {
	config = config.Clone()
	config.ClientSessionCache = nil // a session that is resumed shows none
	choose, certificates := config.GetClientCertificate, config.Certificates
	config.GetClientCertificate = func(request *tls.CertificateRequestInfo) (*tls.Certificate, error) {
		chosen, err := &tls.Certificate{}, error(nil)
		if choose != nil {
			chosen, err = choose(request)
		} else if i := slices.IndexFunc(certificates, func(c tls.Certificate) bool { return request.SupportsCertificate(&c) == nil }); i >= 0 {
			chosen = &certificates[i]
		}
		*shown = err == nil && len(chosen.Certificate) > 0
		return chosen, err
	}
	return config
}

func (t *target) startTLS(c *session.Conn) error {
	config, shown := t.tls.Clone(), true
	if t.certificate {
		shown = false
		config = showing(config, &shown)
	}
	config.DynamicRecordSizingDisabled = true
	if t.direct {
		config.NextProtos = []string{pgwire.ALPN}
	} else {
		if _, err := c.Write(pgwire.AppendPacket(nil, pgwire.SSLRequest, nil)); err != nil {
			return err
		}
		// Read exactly one byte: later bytes belong to TLS.
		var answer [1]byte
		if _, err := io.ReadFull(c, answer[:]); err != nil {
			return fmt.Errorf("asking for TLS: %w", err)
		}
		if answer[0] != pgwire.Accepted {
			return errors.New("server does not support TLS")
		}
	}
	if err := c.StartClientTLS(config); err != nil {
		return fmt.Errorf("TLS handshake: %w", err)
	}
	if !shown {
		return errNoCertificate
	}
	if t.direct && c.TLS().NegotiatedProtocol != pgwire.ALPN {
		return errors.New("server did not agree on PostgreSQL's protocol (ALPN): direct TLS needs PostgreSQL 17 or later")
	}
	return nil
}

// at returns t, pinned to the server that answered: if a name has several addresses,
// only the server at one of them can cancel the session's query.
func (t *target) at(a net.Addr) *target {
	if a == nil || a.Network() != "tcp" || a.String() == t.address {
		return t
	}
	pinned := *t
	pinned.address = a.String()
	return &pinned
}

// logon logs on to the server, from the start-up message to ReadyForQuery.
func (u *upstream) logon(role dbuser.SessionRole, database string, params []pgwire.Param) error {
	version := uint32(pgwire.Version30)
	if role.ServerVersion >= 180000 {
		version = pgwire.Version32 // for its longer cancel keys
	}
	all := append([]pgwire.Param{{Name: "user", Value: role.Name}, {Name: "database", Value: database}}, beginAs(role.User, params)...)
	packet := pgwire.AppendStartup(make([]byte, 0, 256), version, all)
	if len(packet) > pgwire.MaxStartupPacket {
		return &serverError{state: pgwire.StateLimitExceeded, message: "start-up parameters are too long"}
	}
	if _, err := u.Write(packet); err != nil {
		return err
	}
	in := pgwire.NewReader(u.Conn)
	auth := authentication{password: role.Password.Reveal(), state: u.TLS(), target: u.target, local: u.Local()}
	var opening pgwire.Opening
	for {
		kind, body, err := in.Admitted(opening.Admit)
		if err != nil {
			return fmt.Errorf("logging on: %w", err)
		}
		switch kind {
		case pgwire.MsgAuthentication:
			answer, err := auth.answer(body)
			if err != nil {
				return fmt.Errorf("%w: %w", errAuthentication, err)
			}
			u.answered = true
			if auth.done {
				opening.Authenticated()
			}
			if answer != nil {
				if _, err := u.Write(pgwire.AppendMessage(nil, pgwire.MsgPassword, answer)); err != nil {
					return err
				}
			}
		case pgwire.MsgErrorResponse:
			if said := parseServerError(body); len(said.state) == 5 {
				// PostgreSQL checks only after AuthenticationOk whether the role may log in.
				said.late = auth.done && said.routine != "InitializeSessionUserId"
				return said
			}
			return fmt.Errorf("logging on: error without SQLSTATE: %w", pgwire.ErrMalformed)
		case pgwire.MsgParameterStatus:
			if name, rest, ok := pgwire.CutString(body); ok {
				value, _, _ := pgwire.CutString(rest)
				u.status[name] = value
			}
			u.settings = pgwire.AppendMessage(u.settings, kind, body)
		case pgwire.MsgNoticeResponse:
			if auth.done { // before that, clients expect only Authentication and ErrorResponse
				u.settings = pgwire.AppendMessage(u.settings, kind, body)
			}
		case pgwire.MsgBackendKeyData:
			u.pid = binary.BigEndian.Uint32(body)
			u.key = append([]byte(nil), body[4:]...)
		case pgwire.MsgNegotiateProtocolVersion: // from a standby that is older than its primary
		case pgwire.MsgReadyForQuery:
			u.ready = body[0]
			u.early = in.Rest()
			return nil
		}
	}
}

// beginAs makes the session begin as a role, by the first of its start-up options. The
// session role has the same setting, but the server ignores that setting if the session
// role has lost its user. If it cannot apply the option, it refuses the session.
func beginAs(role string, params []pgwire.Param) []pgwire.Param {
	if role == "" {
		return params
	}
	option := "-c role=" + optionEscaper.Replace(role)
	all := make([]pgwire.Param, 0, len(params)+1)
	for _, p := range params {
		if p.Name == "options" {
			option += " " + p.Value
		} else {
			all = append(all, p)
		}
	}
	return append(all, pgwire.Param{Name: "options", Value: option})
}

// optionEscaper escapes the characters that separate words in the start-up parameter options.
var optionEscaper = strings.NewReplacer(`\`, `\\`, " ", `\ `, "\t", "\\\t", "\n", "\\\n", "\v", "\\\v", "\f", "\\\f", "\r", "\\\r")

// kindOfServer is for servers that do not report their kind. All names are qualified, because the
// owner of the database chooses its search_path.
const kindOfServer = "SELECT pg_catalog.concat(CASE WHEN pg_catalog.pg_is_in_recovery() THEN 'on' ELSE 'off' END, ',', " +
	"pg_catalog.current_setting('default_transaction_read_only'))"

// accept checks that the server is of the kind that target_session_attrs demands. Servers
// report their kind from PostgreSQL 14 on; older ones have to be queried.
func (u *upstream) accept(attrs string) error {
	if attrs == "" || attrs == "any" {
		return nil
	}
	standby, readOnly := u.status["in_hot_standby"], u.status["default_transaction_read_only"]
	if standby == "" {
		answers, err := u.ask(kindOfServer)
		if err != nil {
			return &connectError{reached: true, answered: true, address: u.target.address, err: err}
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
		return &connectError{reached: true, answered: true, address: u.target.address, err: errors.New("server is not " + attrs)}
	}
	return nil
}

// maxAnswer and maxAnswerMessages bound the answer to a query of the gateway's own. An
// honest answer is a word or two.
const (
	maxAnswer         = 64 << 10
	maxAnswerMessages = 100
)

// answered is the answer to a query of the gateway's own: the first column of each row of each
// result, and the transaction status after it.
type answered struct {
	values []string
	status byte
}

// ask runs a query of the gateway's own and returns the first column of each row
// of each result.
func (u *upstream) ask(query string) ([]string, error) {
	answers, err := u.askAll(query)
	if err != nil {
		return nil, err
	}
	return answers[0].values, nil
}

// askAll sends all queries at once and reads their answers, up to the first that fails. It returns
// those before that. After an error, there may be answers that were not read.
func (u *upstream) askAll(queries ...string) (answers []answered, err error) {
	var out []byte
	for _, query := range queries {
		out = pgwire.AppendMessage(out, pgwire.MsgQuery, pgwire.AppendString(nil, query))
	}
	if _, err := u.Write(out); err != nil {
		return nil, err
	}
	in := pgwire.NewReaderAhead(u.early, u.Conn)
	u.early = nil
	var one answered
	var failure error
	bytes := 0
	for range maxAnswerMessages {
		kind, body, err := in.Message(maxAnswer - bytes)
		if err != nil {
			return answers, err
		}
		bytes += len(body)
		switch {
		case kind == pgwire.MsgErrorResponse:
			said := parseServerError(body)
			said.late = true
			failure = said
		case kind == pgwire.MsgDataRow && len(body) >= 6:
			size := binary.BigEndian.Uint32(body[2:])
			if int64(size) > int64(len(body)-6) {
				return answers, pgwire.ErrMalformed
			}
			one.values = append(one.values, string(body[6:6+size]))
		case kind == pgwire.MsgReadyForQuery:
			if len(body) != 1 {
				return answers, pgwire.ErrMalformed
			}
			u.ready, u.early = body[0], in.Rest()
			if failure != nil {
				return answers, failure
			}
			one.status = body[0]
			answers, one = append(answers, one), answered{}
			if len(answers) == len(queries) {
				return answers, nil
			}
			u.early = nil
		}
	}
	return answers, pgwire.ErrTooLong
}

// backend identifies the server's process, or is nil if the server has not named it.
func (u *upstream) backend() *dbuser.Backend {
	if u.pid == 0 {
		return nil
	}
	return &dbuser.Backend{PID: u.pid, Address: u.RemoteAddr().String()}
}

// untouched reports whether the server has neither sent anything since ReadyForQuery
// nor closed the connection. If it has, the session has to end.
func (u *upstream) untouched() bool {
	return len(u.early) == 0 && u.ready == pgwire.StatusIdle && u.Untouched()
}

// leave ends an unused session and waits until the server has closed it, because only then is
// its connection free, but no longer than patience.
func (u *upstream) leave(patience time.Duration) {
	_ = u.SetDeadline(time.Now().Add(patience))
	if _, err := u.Write([]byte(pgwire.Terminate)); err == nil {
		u.Drain()
	}
	u.Abort()
}

// timedOut reports whether an error means that a deadline passed.
func timedOut(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded)
}
