package gateway

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime/debug"
	"time"

	"github.com/daypass/daypass/internal/admission"
	"github.com/daypass/daypass/internal/credential"
	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/pgwire"
	"github.com/daypass/daypass/internal/proxyproto"
	"github.com/daypass/daypass/internal/session"
	"github.com/daypass/daypass/internal/throttle"
)

// answerMargin is the part of a logon's time that is kept for telling the client that
// the cluster did not answer.
const answerMargin = 500 * time.Millisecond

// logon is one attempt to log on, from accept to a session or a refusal. It is not kept after
// the attempt.
type logon struct {
	server   *Server
	visitor  *admission.Visitor
	client   *session.Conn
	in       *pgwire.Reader
	peer     netip.AddrPort // the client's address; behind a proxy, the one that the proxy names
	proxied  bool           // the connection comes from a proxy
	known    bool           // the proxy has named the client
	deadline time.Time

	id       string // of the session; set once a start-up message has arrived over a permitted connection
	asked    *pgwire.Startup
	greeted  time.Time // when the start-up message had arrived
	password time.Time // when the password had; zero: it has not
	grant    credential.Grant
	genuine  bool // grant is set
	role     dbuser.SessionRole
	database string

	unfinished []abandoned // to servers that may still be starting a session
	uncounted  bool        // the other servers do not count it: a limit over all is reached, or they are not known
	origin     *origin     // nil: the session is never parked
	reused     bool        // the upstream session was parked
	ahead      bool        // the upstream session was started ahead
	next       *pooled     // the next one, to be started ahead; nil: none
	prepared   time.Time   // when the session role was ready
	connected  time.Time   // when the upstream session was
}

// receive handles a connection until its session starts or its logon fails. The session then
// runs in goroutines of its own, so that the stack used by TLS is freed. proxied reports that
// the connection comes from a proxy, which must name its client first.
func (s *Server) receive(conn net.Conn, v *admission.Visitor, proxied bool) {
	l := &logon{server: s, visitor: v, peer: session.Peer(conn.RemoteAddr()), deadline: v.Arrived.Add(s.limits.LogonTimeout)}
	l.client = session.NewConn(conn, v)
	defer s.waiting.Leave(v)
	defer func() {
		// A message that makes one logon panic must not end the others.
		if problem := recover(); problem != nil {
			conn.Close()
			s.log.Error("internal error during a logon", "client", l.peer, "problem", problem, "stack", string(debug.Stack()))
		}
	}()
	// One deadline covers everything, so a peer that sends a byte now and then gains no time.
	if err := conn.SetDeadline(l.deadline); err != nil {
		conn.Close()
		return
	}
	if proxied {
		if err := l.readProxyHeader(); err != nil {
			conn.Close()
			return
		}
	}
	e, r := l.run()
	l.observe(e, r)
	switch {
	case r != nil:
		l.refuse(r)
	case e != nil:
		e.Start()
	}
}

// run returns a session that is ready to start, or a refusal. It returns neither if the connection
// was not a logon but, for example, a cancel request.
func (l *logon) run() (*entry, *refusal) {
	asked, r := l.greet()
	if asked == nil {
		if r == nil {
			l.close()
		}
		return nil, r
	}
	l.asked, l.greeted = asked, time.Now()
	s := l.server
	if l.client.TLS() == nil && !l.local() {
		return nil, &refusal{reason: ReasonProtocol, state: pgwire.StateInvalidAuthorization, message: "TLS is required to log on here",
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
	return l.openBounded()
}

// openBounded is open, for a bounded number of logons of one principal at a time. The peer has proved
// that it is no stranger, so it leaves the places of strangers: a cluster that hangs keeps a logon
// waiting for seconds, and those with a credential for it would keep everyone else out.
func (l *logon) openBounded() (*entry, *refusal) {
	s, principal := l.server, principalKey(l.grant.Principal)
	pass, verdict := s.openings.Enter(principal, s.now())
	if verdict != throttle.Admitted {
		return nil, &refusal{reason: ReasonLimit, state: pgwire.StateTooManyConnections, unrecorded: verdict == throttle.RefusedAgain,
			message: "too many logons with credentials of the same principal are in progress",
			hint:    "Try again in a moment. If it happens again, look whether the cluster answers."}
	}
	s.opening.Add(1)
	defer func() {
		s.opening.Add(-1)
		s.openings.Leave(principal, pass)
	}()
	s.waiting.Leave(l.visitor)
	return l.open()
}

// readProxyHeader reads the header of the PROXY protocol, under the deadline of the
// logon. From then on the connection counts as its client's.
func (l *logon) readProxyHeader() error {
	client, err := proxyproto.Read(l.client)
	if err == nil && client.IsValid() {
		err = l.server.waiting.Move(l.visitor, client.Addr(), false)
	}
	switch {
	case errors.Is(err, admission.ErrShare):
		l.server.warn("connection refused: too many half-open from its address", "client", client, "proxy", l.peer)
	case errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed), errors.Is(err, admission.ErrClosed):
		// A health check that only connects, or a connection that made room.
	case err != nil:
		l.server.warn("connection refused: an address of gateway.proxy_protocol.from has to send the PROXY protocol first: "+
			"switch it on there, or take the address out", "proxy", l.peer, "err", err)
	default:
		l.proxied = true
		if client.IsValid() {
			l.peer, l.known = client, true
		}
	}
	return err
}

// local reports whether what the client sends stays on this machine. Behind a proxy
// that means that the proxy has named a client on this machine as well.
func (l *logon) local() bool {
	return l.client.Local() && (!l.proxied || l.known && l.peer.Addr().IsLoopback())
}

func refuseShutdown() *refusal {
	return &refusal{reason: ReasonShutdown, state: pgwire.StateCannotConnectNow, message: "the gateway is shutting down"}
}

// checkPassword decides whether the password is a valid credential for this user. Until
// its signature is known to be right, and to be for this user, every fault gets the
// same answer.
func (l *logon) checkPassword(password string) *refusal {
	grant, err := l.server.check(password)
	if errors.Is(err, ErrKeysUnknown) {
		return refuseKeysUnknown(err)
	}
	if err != nil && !errors.Is(err, credential.ErrExpired) && !errors.Is(err, credential.ErrNotYetValid) {
		return refuseForged(l.asked.User, err)
	}
	// An expired credential names its user; one that does not is treated as forged.
	if grant.DBUser == "" {
		return refuseForged(l.asked.User, errors.Join(err, errors.New("the credential names no user")))
	}
	l.grant, l.genuine = grant, true
	if !grant.AcceptsUser(l.asked.User) {
		return refuseForged(l.asked.User, fmt.Errorf("credential is for user %q", grant.LogonName()))
	}
	if err != nil {
		return refuseCredential(l.asked.User, err)
	}
	if r := l.server.refuseRevoked(&l.grant); r != nil {
		return r
	}
	if may, tell := l.server.record.mayLogOn(grant.Principal); !may {
		return &refusal{reason: ReasonLimit, state: pgwire.StateLimitReached, unrecorded: !tell, message: "too many logons with credentials of the same principal",
			hint: "Try again in a moment, or keep connections open in a pool."}
	}
	return nil
}

// open turns a valid credential into a session.
func (l *logon) open() (*entry, *refusal) {
	s, grant := l.server, &l.grant
	cluster, ok := s.cluster(grant.Cluster)
	if !ok {
		return nil, &refusal{reason: ReasonRefused, state: pgwire.StateRejected, message: fmt.Sprintf("cluster \"%s\" is not served here", grant.Cluster)}
	}
	if r := l.chooseDatabase(cluster); r != nil {
		return nil, r
	}
	wait, r := l.reserve(cluster)
	if r != nil {
		return nil, r
	}
	e, r := l.openReserved(cluster, wait)
	if r == nil {
		if len(l.unfinished) > 0 { // at other hosts
			e.unfinished = make(chan struct{})
			s.stuck.follow(l.unfinished, func() { close(e.unfinished) })
		}
		return e, nil
	}
	identifier, user, everywhere := cluster.Identifier, grant.DBUser, !l.uncounted
	s.stuck.follow(l.unfinished, func() {
		if everywhere {
			s.release(identifier, user)
		} else {
			s.sessions.release(identifier, user)
		}
	})
	return nil, r
}

// chooseDatabase sets the session's database. The credential's database counts: the
// client must name the same one or none. Naming the user as database counts as none,
// because libpq does so when it was given no database (and no database is called
// "IAM:alice"). A credential for any database leaves the choice to the client; a client
// that names none then gets the cluster's default database.
func (l *logon) chooseDatabase(cluster *Cluster) *refusal {
	asked := l.asked.Database
	if asked == l.asked.User {
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
		return &refusal{reason: ReasonRefused, state: pgwire.StateInvalidAuthorization,
			message: fmt.Sprintf("the credential is for database \"%s\", not for \"%s\"", granted, pgwire.Clip(asked)),
			hint:    "Ask for a credential with this DbName, or without a DbName for all databases."}
	}
	return nil
}

func (l *logon) openReserved(cluster *Cluster, wait func(context.Context) error) (*entry, *refusal) {
	s, grant := l.server, &l.grant
	ctx, cancel := context.WithDeadline(context.Background(), l.deadline.Add(-answerMargin))
	defer cancel()
	need := dbuser.Need{User: grant.DBUser, Groups: grant.DBGroups, AutoCreate: grant.AutoCreate,
		Identity: grant.Kind == credential.Identity, Database: l.database}
	role, err := cluster.Admin.Ensure(ctx, need)
	if err != nil {
		_ = l.awaitCount(ctx, cluster, wait) // it has to end
		return nil, refuseRole(cluster.Identifier, err)
	}
	l.role, l.prepared = role, time.Now()
	up, err := l.connect(ctx, cluster, need)
	cluster.Admin.Opened(role.Name)
	uncounted := l.awaitCount(ctx, cluster, wait)
	if err != nil {
		return nil, l.refuseUpstream(cluster, err)
	}
	if uncounted == nil && s.everywhere != nil && !s.everywhere.Held(cluster.Identifier, grant.DBUser) {
		uncounted = l.refuseEverywhere(cluster, errNotHeld) // this process was frozen, or cut off
	}
	if uncounted != nil {
		up.Close()
		return nil, uncounted
	}
	l.connected = time.Now()
	e := s.newSession(l, cluster, up)
	record := l.record(nil)
	record.ProcessID = up.pid
	if err := s.record.logon(record); err != nil {
		s.sessions.forget(e)
		up.Close()
		return nil, &refusal{reason: ReasonAudit, state: pgwire.StateIOError, message: "logon refused: its audit record could not be written",
			cause: fmt.Errorf("writing the audit record: %w", err)}
	}
	if err := l.welcome(e, up); err != nil {
		// The record says that the session began, so it has to end.
		e.End(session.Cause{Reason: session.ReasonClientGone})
	}
	s.endIfRevoked(e, new(credential.Grant)) // the sweep may have looked before the session was in the table
	if s.ending.Load() {                     // and so may endAll
		e.End(shutdown())
	}
	if l.next != nil {
		s.startAhead(l.next)
	}
	s.log.Info("logon", append(l.attributes(), "prewarmed", l.ahead, "parked", l.reused)...)
	return e, nil
}

// connect returns an upstream session: a parked one, one that was started ahead, or a new one.
func (l *logon) connect(ctx context.Context, cluster *Cluster, need dbuser.Need) (*upstream, error) {
	s := l.server
	key, pooling := l.poolKey(cluster)
	if pooling {
		l.origin = l.newOrigin(cluster, key, need)
	}
	if l.origin != nil {
		if up := s.unpark(ctx, l.origin); up != nil {
			l.reused = true
			return up, nil
		}
		defer func() {
			if l.origin.key.role != l.role.Name || l.origin.key.seen != l.role.Seen {
				l.origin = nil
			}
		}()
	}
	sparing := pooling && cluster.Prewarm > 0
	if sparing {
		if one := s.takeSpare(&key); one != nil {
			l.ahead, l.next = true, l.newSpare(cluster, key, need, one.order.params)
			return one.up, nil
		}
	}
	o := opener{logon: l, cluster: cluster, need: need}
	up, err := o.open(ctx)
	if err == nil && sparing && !o.healed {
		l.next = l.newSpare(cluster, key, need, o.params)
	}
	return up, err
}

// welcome tells the client that it is logged on. It sends the upstream's parameters and a cancel
// key of the gateway's.
func (l *logon) welcome(e *entry, up *upstream) error {
	out := appendAuthentication(make([]byte, 0, 1024), pgwire.AuthOK)
	if version := up.status["server_version"]; l.asked.Redshift && version != "" {
		out = pgwire.AppendWithStatus(out, up.settings, "server_version", pgwire.BareVersion(version))
	} else {
		out = append(out, up.settings...)
	}
	if key := e.cancel.ours; key != nil {
		b, at := pgwire.Begin(out, pgwire.MsgBackendKeyData)
		out = pgwire.Finish(append(pgwire.AppendUint32(b, e.cancel.pid), key...), at)
	}
	out = pgwire.AppendMessage(out, pgwire.MsgReadyForQuery, []byte{up.ready})
	if err := l.client.SetDeadline(l.deadline); err != nil {
		return err
	}
	_, err := l.client.Write(out)
	return err
}

// refuse records a refusal and then answers it. If the record cannot be written, only the log
// says so: the logon is refused anyway.
func (l *logon) refuse(r *refusal) {
	l.recordRefusal(r)
	answer := func() {
		if out := r.answer(); out != nil {
			_ = l.client.SetDeadline(time.Now().Add(time.Second))
			_, _ = l.client.Write(out) // a client that does not read it has left
		}
		l.close()
	}
	if !r.forged {
		answer()
		return
	}
	l.server.waiting.Leave(l.visitor) // Failures bounds the answers that are held back
	l.server.failures.Hold(l.visitor.Address, l.password, answer)
}

// close closes the connection. Under TLS it notifies the peer first, but does not wait for a
// peer that does not read.
func (l *logon) close() {
	_ = l.client.SetDeadline(time.Now().Add(time.Second))
	_ = l.client.CloseWrite()
	l.client.Abort()
}
