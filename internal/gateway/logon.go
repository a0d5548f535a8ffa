package gateway

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"runtime/debug"
	"time"

	"github.com/daypass/daypass/internal/admission"
	"github.com/daypass/daypass/internal/audit"
	"github.com/daypass/daypass/internal/credential"
	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/proxyproto"
	"github.com/daypass/daypass/internal/throttle"
)

// answerMargin is what is left of a logon's time for telling the client that the
// cluster did not answer.
const answerMargin = 500 * time.Millisecond

// logon is one attempt to log on, from accept to a session or a refusal. Nothing
// of it outlives the attempt.
type logon struct {
	server   *Server
	conn     net.Conn
	visitor  *admission.Visitor
	client   end
	in       *reader
	peer     netip.AddrPort // the client, behind a proxy that says whose connection it is
	proxied  bool           // it is behind one,
	known    bool           // which has said so
	deadline time.Time

	id       string // of the session to be; set when it was tried to log on
	asked    *startup
	greeted  time.Time // when the start-up message was there
	password time.Time // when it arrived; zero: it has not
	grant    credential.Grant
	genuine  bool // grant is set
	role     dbuser.SessionRole
	database string

	ahead     bool        // the upstream session was started ahead
	next      *spareOrder // for the next one; nil: none
	prepared  time.Time   // when the session role was ready
	connected time.Time   // when the upstream session was
}

// receive takes a connection to its session, or to its end. The session goes on
// in goroutines of its own, so that the stack that TLS needed is not kept.
// behind: the connection comes from a proxy that has to say whose it is.
func (s *Server) receive(conn net.Conn, v *admission.Visitor, behind bool) {
	l := &logon{server: s, conn: conn, visitor: v, peer: peerOf(conn.RemoteAddr()), deadline: v.Arrived.Add(s.limits.LogonTimeout)}
	l.client = end{socket: newSocket(conn, v)}
	defer s.waiting.Leave(v)
	defer func() {
		// A message that brings one logon down must not take the others along.
		if problem := recover(); problem != nil {
			conn.Close()
			s.log.Error("internal error during a logon", "client", l.peer, "problem", problem, "stack", string(debug.Stack()))
		}
	}()
	// One deadline for everything: a peer that sends a byte now and then gains
	// no time.
	if err := conn.SetDeadline(l.deadline); err != nil {
		conn.Close()
		return
	}
	if behind {
		if err := l.identify(); err != nil {
			conn.Close()
			return
		}
	}
	session, r := l.run()
	l.observe(session, r)
	switch {
	case r != nil:
		l.refuse(r)
	case session != nil:
		session.start()
	}
}

// run returns a session that is ready to start, a refusal, or neither when the
// connection was for something else.
func (l *logon) run() (*session, *refusal) {
	asked, r := l.greet()
	if asked == nil {
		if r == nil {
			l.close()
		}
		return nil, r
	}
	l.asked, l.greeted = asked, time.Now()
	s := l.server
	if l.client.tls == nil && !l.local() {
		return nil, &refusal{reason: ReasonProtocol, state: stateInvalidAuthorization, message: "TLS is required to log on here",
			hint: "Connect with sslmode=verify-full, or at least sslmode=require."}
	}
	if s.draining.Load() {
		return nil, refuseShutdown()
	}
	l.id = rand.Text()
	if r != nil {
		return nil, r
	}
	password, r := l.askPassword(asked)
	if r != nil && !r.forged {
		return nil, r
	}
	l.password = time.Now()
	if r == nil {
		r = l.checkPassword(password)
	}
	if r != nil {
		return nil, r
	}
	l.visitor.Serve()
	return l.open()
}

// identify reads the header of the PROXY protocol, under the deadline of the logon. From
// then on the connection is its client's.
func (l *logon) identify() error {
	client, err := proxyproto.Read(l.client.socket)
	if err == nil && client.IsValid() {
		err = l.server.waiting.Move(l.visitor, client.Addr(), false)
	}
	switch {
	case errors.Is(err, admission.ErrShare):
		l.server.warn("connection refused: too many half-open from its address", "client", client, "proxy", l.peer)
	case errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed), errors.Is(err, admission.ErrClosed):
		// A probe that only connects, or one that made room.
	case err != nil:
		l.server.warn("connection refused: an address of gateway.proxy_protocol.from has to send the PROXY protocol first: "+
			"switch it on there, or take the address out", "proxy", l.peer, "error", err)
	default:
		if l.proxied = true; client.IsValid() {
			l.peer, l.known = client, true
		}
	}
	return err
}

// local reports whether nobody but this machine can listen in. Behind a proxy that
// takes a client on this machine, too, and a proxy that does not know its client has
// none.
func (l *logon) local() bool {
	return isLocal(l.conn.RemoteAddr()) && (!l.proxied || l.known && l.peer.Addr().IsLoopback())
}

func refuseShutdown() *refusal {
	return &refusal{reason: ReasonShutdown, state: stateCannotConnectNow, message: "the gateway is shutting down"}
}

// checkPassword decides whether the password is a credential for this user and
// database. Whatever is wrong before the signature is known to be right, and for
// this user, gets the same answer.
func (l *logon) checkPassword(password string) *refusal {
	grant, err := l.server.check(password)
	if err != nil && !errors.Is(err, credential.ErrExpired) && !errors.Is(err, credential.ErrNotYetValid) {
		return refuseForged(l.asked.user, err)
	}
	// An expired credential says whose it was; one that says nothing is no better
	// than a forged one.
	if grant.DBUser == "" {
		return refuseForged(l.asked.user, errors.Join(err, errors.New("the check told no user")))
	}
	l.grant, l.genuine = grant, true
	if !grant.AcceptsUser(l.asked.user) {
		return refuseForged(l.asked.user, fmt.Errorf("credential is for user %q", grant.LogonName()))
	}
	if err != nil {
		return refuseCredential(l.asked.user, err)
	}
	if r := l.server.refuseRevoked(&l.grant); r != nil {
		return r
	}
	if may, tell := l.server.record.mayLogOn(grant.Principal); !may {
		return &refusal{reason: ReasonLimit, state: stateLimitReached, untold: !tell, message: "too many logons with credentials of the same principal",
			hint: "Try again in a moment, or keep connections open in a pool."}
	}
	return nil
}

// open goes from a good credential to a session.
func (l *logon) open() (*session, *refusal) {
	s, grant := l.server, &l.grant
	cluster, ok := s.cluster(grant.Cluster)
	if !ok {
		return nil, &refusal{reason: ReasonRefused, state: stateRejected, message: fmt.Sprintf("cluster \"%s\" is not served here", grant.Cluster)}
	}
	if r := l.chooseDatabase(cluster); r != nil {
		return nil, r
	}
	if r := s.sessions.reserve(cluster, grant.DBUser); r != nil {
		return nil, r
	}
	session, r := l.openReserved(cluster)
	if r != nil {
		s.sessions.release(cluster.Identifier, grant.DBUser)
	}
	return session, r
}

// chooseDatabase: the credential's database counts, and the client must agree or
// say nothing. Saying nothing includes naming the user again, which is what libpq
// sends when it was given no database (and no database is called "IAM:alice").
// A credential for any database leaves the choice to the client, and one who says
// nothing then gets the cluster's default database.
func (l *logon) chooseDatabase(cluster *Cluster) *refusal {
	asked := l.asked.database
	if asked == l.asked.user {
		asked = ""
	}
	switch granted := l.grant.Database; {
	case granted == "" && asked == "":
		l.database = cluster.Database
	case granted == "":
		l.database = asked
	case asked == "" || asked == granted:
		l.database = granted
	default:
		return &refusal{reason: ReasonRefused, state: stateInvalidAuthorization,
			message: fmt.Sprintf("the credential is for database \"%s\", not for \"%s\"", granted, clip(asked))}
	}
	return nil
}

func (l *logon) openReserved(cluster *Cluster) (*session, *refusal) {
	s, grant := l.server, &l.grant
	ctx, cancel := context.WithDeadline(context.Background(), l.deadline.Add(-answerMargin))
	defer cancel()
	need := dbuser.Need{User: grant.DBUser, Groups: grant.DBGroups, AutoCreate: grant.AutoCreate,
		Identity: grant.Kind == credential.Identity, Database: l.database}
	role, err := cluster.Admin.Ensure(ctx, need)
	if err != nil {
		return nil, refuseRole(cluster.Identifier, err)
	}
	l.role, l.prepared = role, time.Now()
	up, err := l.connect(ctx, cluster, need)
	cluster.Admin.Opened(role.Name)
	if err != nil {
		return nil, l.refuseUpstream(cluster, err)
	}
	l.connected = time.Now()
	session := s.newSession(l, cluster, up)
	if err := s.record.logon(l.record(nil)); err != nil {
		s.sessions.forget(session)
		up.Close()
		return nil, &refusal{reason: ReasonAudit, state: stateIOError, message: "logon refused: its audit record could not be written",
			cause: fmt.Errorf("writing the audit record: %w", err)}
	}
	if err := l.greetSession(session, up); err != nil {
		// The record says that the session began, so it has to end.
		session.end(&ending{reason: reasonClientGone})
	}
	s.endIfRevoked(session) // the sweep may have looked before the session was there
	if s.ending.Load() {    // endAll may have looked before the session was there
		session.end(shutdown())
	}
	if l.next != nil {
		s.spares.order(l.next)
	}
	s.log.Info("logon", append(l.attributes(), "prewarmed", l.ahead)...)
	return session, nil
}

// checkInterval is how often a running query looks whether the gateway is still
// there, on servers that can (PostgreSQL 14 on).
const checkInterval = "5s"

// connect opens the upstream session, or takes one that was started ahead. A
// session role's holder can change its password, so a password that is refused is
// set anew, once.
func (l *logon) connect(ctx context.Context, cluster *Cluster, need dbuser.Need) (*upstream, error) {
	s := l.server
	key, sparing := l.spareKey(cluster)
	if sparing {
		if up, again := s.spares.take(key); up != nil {
			l.ahead, l.next = true, &spareOrder{key: key, cluster: cluster, role: l.role, user: need.User, groups: need.Groups, params: again.params}
			return up, nil
		}
	}
	params := l.asked.params
	checked := l.role.ServerVersion >= 140000 && !l.asked.has("client_connection_check_interval")
	if checked {
		params = append(params[:len(params):len(params)], param{"client_connection_check_interval", checkInterval})
	}
	up, err := s.connect(ctx, cluster, l.role, l.database, params)
	var said *serverError
	if checked && errors.As(err, &said) && said.state == stateInvalidParameter {
		// Not every operating system can tell that a peer has gone. If it was
		// the client's own parameter, the server says so again.
		params = l.asked.params
		up, err = s.connect(ctx, cluster, l.role, l.database, params)
	}
	if errors.As(err, &said) && said.state == stateTooManyConnections && s.spares.discard(cluster.Admin, everySpare) > 0 {
		up, err = s.connect(ctx, cluster, l.role, l.database, params)
	}
	if passwordRefused(err) {
		s.spares.discard(cluster.Admin, func(key *spareKey) bool { return key.role == l.role.Name })
		role, healErr := cluster.Admin.Heal(ctx, need)
		if healErr != nil {
			return nil, healErr
		}
		s.log.Warn("session role's password set anew", "session", l.id, "cluster", cluster.Identifier, "role", role.Name)
		l.role = role
		up, err = s.connect(ctx, cluster, role, l.database, params)
		sparing = false
	}
	if errors.As(err, &said) && (said.state == "28000" && !said.late || said.state == "42501") {
		// Another gateway may have taken the role's rights away, as none of its
		// sessions was left, just before this one.
		role, againErr := cluster.Admin.Ensure(ctx, need)
		if againErr != nil {
			return nil, againErr
		}
		defer cluster.Admin.Opened(role.Name)
		if role.Seen == [sha256.Size]byte{} || role.Seen != l.role.Seen {
			l.role = role
			up, err = s.connect(ctx, cluster, role, l.database, params)
		}
	}
	if err == nil && sparing {
		l.next = &spareOrder{key: key, cluster: cluster, role: l.role, user: need.User, groups: need.Groups, params: params}
	}
	return up, err
}

// greetSession tells the client that it is logged on: what the upstream said, and
// a cancel key of ours.
func (l *logon) greetSession(session *session, up *upstream) error {
	out := appendMessage(make([]byte, 0, 1024), 'R', []byte{0, 0, 0, 0})
	if version := up.status["server_version"]; l.asked.redshift && version != "" {
		out = appendStatuses(out, up.settings, "server_version", bareVersion(version))
	} else {
		out = append(out, up.settings...)
	}
	if key := session.key(); key != nil {
		b, at := begin(out, 'K')
		out = finish(append(appendUint32(b, session.pid), key...), at)
	}
	out = appendMessage(out, 'Z', []byte{up.ready})
	if err := l.client.SetDeadline(l.deadline); err != nil {
		return err
	}
	_, err := l.client.Write(out)
	return err
}

// appendStatuses appends messages, with the value of one ParameterStatus replaced.
func appendStatuses(b, messages []byte, name, value string) []byte {
	for len(messages) >= 5 {
		size := 1 + int(uint32(messages[1])<<24|uint32(messages[2])<<16|uint32(messages[3])<<8|uint32(messages[4]))
		message := messages[:size]
		messages = messages[size:]
		if got, _, ok := cutString(message[5:]); ok && message[0] == 'S' && got == name {
			var at int
			b, at = begin(b, 'S')
			b = finish(appendString(appendString(b, name), value), at)
			continue
		}
		b = append(b, message...)
	}
	return b
}

// refuse records a refusal and answers it. The record comes first; when it cannot
// be written there is nothing more to refuse, and the log says so.
func (l *logon) refuse(r *refusal) {
	l.recordRefusal(r)
	answer := func() {
		if out := r.answer(); out != nil {
			_ = l.client.SetDeadline(time.Now().Add(time.Second))
			_, _ = l.client.Write(out) // who does not read it does not want it
		}
		l.close()
	}
	if !r.forged {
		answer()
		return
	}
	l.server.waiting.Leave(l.visitor) // what is held back is bounded elsewhere
	l.server.failures.Hold(l.visitor.Address, l.password, answer)
}

// recordRefusal writes the refusal to the audit log when a user was named, and to the
// log.
func (l *logon) recordRefusal(r *refusal) {
	s := l.server
	switch {
	case r.silent && r.reason != ReasonProtocol:
		s.log.Debug("connection ended before a logon", "client", l.peer, "reason", r.Error())
		return
	case r.untold:
		return
	}
	who, lines := throttle.Stranger{Address: l.visitor.Address, Name: l.grant.ID}, s.record.refused
	if l.stranger(r) {
		lines = s.record.strangers
	}
	if !l.attempted() {
		if write, omitted := lines.Next(who, refusalLine, s.now()); write {
			s.log.Info("connection refused", "client", l.peer, "sqlstate", r.state, "reason", r.Error(), "omitted", omitted)
		}
		return
	}
	record := l.record(r)
	write, omitted := lines.Next(who, record.Size(), s.now())
	if !write {
		return
	}
	record.Omitted = omitted
	if err := s.record.audit.Logon(*record); err != nil {
		s.log.Error("writing the audit record of a refused logon", "session", l.id, "error", err)
	}
	s.log.Info("logon refused", append(l.attributes(), "sqlstate", r.state, "reason", r.Error(), "omitted", omitted)...)
}

// refusalLine is about how long the log line of a connection is that is refused before
// a user is named.
const refusalLine = 200

// stranger reports whether nothing that is good now says who was refused.
func (l *logon) stranger(r *refusal) bool {
	return !l.genuine || errors.Is(r.cause, credential.ErrExpired) || errors.Is(r.cause, credential.ErrNotYetValid)
}

// attempted reports whether this is on record as an attempt to log on: somebody
// named a user, where passwords are asked for. Probes that only want to know
// whether the gateway is there, and who leaves without a password, are not.
func (l *logon) attempted() bool { return l.id != "" && l.asked.user != "" }

// close ends the connection, under TLS with a word, and without waiting for a
// peer that does not read.
func (l *logon) close() {
	_ = l.client.SetDeadline(time.Now().Add(time.Second))
	_ = l.client.CloseWrite()
	l.client.socket.Conn.Close()
}

// record is the audit record of the logon; r is nil when it succeeded.
func (l *logon) record(r *refusal) *audit.LogonRecord {
	record := &audit.LogonRecord{
		Time: l.server.now(), SessionID: l.id, Client: l.peer, TLS: audit.TLSDetails(l.client.state()),
		User: clip(l.asked.user), Database: clip(l.asked.database), ApplicationName: clip(l.asked.application()),
		SessionRole: l.role.Name, Took: time.Since(l.visitor.Arrived),
	}
	if l.genuine {
		g := &l.grant
		record.CredentialID, record.Principal, record.Cluster = g.ID, g.Principal, g.Cluster
		record.DBUser, record.DBGroups, record.AutoCreate = g.DBUser, g.DBGroups, g.AutoCreate
	}
	if r != nil {
		record.SQLState, record.Message, record.Reason = r.state, r.message, r.Error()
	}
	return record
}

// attributes are what every log line about the logon carries.
func (l *logon) attributes() []any {
	list := []any{"session", l.id, "client", l.peer, "user", clip(l.asked.user)}
	if l.genuine {
		list = append(list, "credential", l.grant.ID, "principal", l.grant.Principal, "cluster", l.grant.Cluster,
			"database", l.database, slog.Duration("took", time.Since(l.visitor.Arrived).Round(time.Microsecond)))
	}
	return list
}
