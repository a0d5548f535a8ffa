package gateway

import (
	"errors"
	"log/slog"
	"strings"
	"time"

	"github.com/daypass/daypass/internal/audit"
	"github.com/daypass/daypass/internal/credential"
	"github.com/daypass/daypass/internal/pgwire"
	"github.com/daypass/daypass/internal/throttle"
)

// strangerLines and AllStrangerLines bound the lines that one stranger's address, and all
// strangers together, can cause in the audit log and the log. Refused logons of credential
// holders have the same bounds, by address and by credential.
var (
	strangerLines    = throttle.Limit{Rate: 10, Burst: 1000, Bytes: 4 << 10, BytesBurst: 1 << 20}
	AllStrangerLines = throttle.Limit{Rate: 100, Burst: 10_000, Bytes: 32 << 10, BytesBurst: 8 << 20}
)

// maxPrincipals is the number of principals that are counted separately.
const maxPrincipals = 1 << 16

// recorder writes the audit records of logons and sessions, and bounds them. Safe for
// concurrent use.
type recorder struct {
	audit Auditor
	now   func() time.Time
	// strangers bounds the lines about peers without a valid credential; refused bounds those
	// about peers that have one and are refused for another reason.
	strangers, refused *throttle.Lines
	// cancels bounds the lines in the log about cancel requests that name a session.
	cancels *throttle.Lines
	// principals bounds what is written about the sessions of each principal: beyond the
	// bound, logons with the principal's credentials are refused.
	principals *throttle.Keys[string]
}

func newRecorder(auditor Auditor, now func() time.Time) *recorder {
	return &recorder{audit: auditor, now: now, strangers: throttle.NewLines(strangerLines, AllStrangerLines),
		refused: throttle.NewLines(strangerLines, AllStrangerLines), cancels: throttle.NewLines(strangerLines, AllStrangerLines), principals: throttle.NewKeys[string](throttle.Limit{}, maxPrincipals)}
}

// SetPrincipalLimit bounds what may be written to the audit log about the logons and
// sessions of one principal, by Bytes and BytesBurst of the limit. Beyond it, logons with
// the principal's credentials are refused. A Server begins without a limit.
func (s *Server) SetPrincipalLimit(l throttle.Limit) {
	s.record.principals.SetLimit(throttle.Limit{Bytes: l.Bytes, BytesBurst: l.BytesBurst})
}

// principalKey identifies a principal for the bounds: the IAM user, or the IAM role
// without the session's name, which the caller may choose.
func principalKey(arn string) string {
	head, kind, found := strings.Cut(arn, ":assumed-role/")
	if !found {
		return arn
	}
	role, _, _ := strings.Cut(kind, "/")
	return head + ":assumed-role/" + role
}

// mayLogOn reports whether the principal may log on. If not, tell reports whether to record the
// refusal: at most one per second is recorded.
func (r *recorder) mayLogOn(principal string) (may, tell bool) {
	key := principalKey(principal)
	pass, verdict := r.principals.Enter(key, r.now())
	if verdict == throttle.Admitted {
		r.principals.Leave(key, pass)
	}
	return verdict == throttle.Admitted, verdict == throttle.Refused
}

// logon writes the record of a logon that succeeded.
func (r *recorder) logon(record *audit.LogonRecord) error {
	size, err := r.audit.Logon(record)
	r.principals.Charge(principalKey(record.Principal), size, r.now())
	return err
}

// sessionEnd writes the record of a session's end.
func (r *recorder) sessionEnd(record *audit.SessionRecord) error {
	size, err := r.audit.SessionEnd(record)
	r.principals.Charge(principalKey(record.Principal), size, r.now())
	return err
}

// recordRefusal writes the refusal to the log, and to the audit log if a user was
// named.
func (l *logon) recordRefusal(r *refusal) {
	s := l.server
	switch {
	case r.silent && r.reason != ReasonProtocol:
		s.log.Debug("connection ended before a logon", "client", l.peer, "reason", r.Error())
		return
	case r.unrecorded:
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
	if _, err := s.record.audit.Logon(record); err != nil {
		s.log.Error("the audit record of a refused logon could not be written", "session", l.id, "err", err)
	}
	s.log.Info("logon refused", append(l.attributes(), "sqlstate", r.state, "reason", r.Error(), "omitted", omitted)...)
}

// refusalLine is the approximate length of the log line for a connection that is refused before
// it names a user.
const refusalLine = 200

// stranger reports whether the peer has no credential that is valid now.
func (l *logon) stranger(r *refusal) bool {
	return !l.genuine || errors.Is(r.cause, credential.ErrExpired) || errors.Is(r.cause, credential.ErrNotYetValid)
}

// attempted reports whether the connection counts as an attempt to log on: the client named a
// user on a connection that asks for passwords. Port probes, and clients that leave without a
// password, do not count and are not recorded.
func (l *logon) attempted() bool { return l.id != "" && l.asked.User != "" }

// record returns the audit record of the logon. r is nil if the logon succeeded.
func (l *logon) record(r *refusal) *audit.LogonRecord {
	record := &audit.LogonRecord{
		Time: l.server.now(), SessionID: l.id, Client: l.peer, TLS: audit.TLSDetails(l.client.TLS()),
		User: pgwire.Clip(l.asked.User), Database: pgwire.Clip(l.asked.Database), ApplicationName: pgwire.Clip(l.asked.Application()),
		SessionRole: l.role.Name, Upstream: l.upstreamKind(r), Took: time.Since(l.visitor.Arrived),
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

// upstreamKind returns the origin of the upstream session, for the record.
func (l *logon) upstreamKind(r *refusal) string {
	switch {
	case r != nil:
		return ""
	case l.reused:
		return stateParked
	case l.ahead:
		return statePrewarmed
	}
	return "new"
}

// attributes returns the attributes of every log line about the logon.
func (l *logon) attributes() []any {
	list := []any{"session", l.id, "client", l.peer, "user", pgwire.Clip(l.asked.User)}
	if l.genuine {
		list = append(list, "credential", l.grant.ID, "principal", l.grant.Principal, "cluster", l.grant.Cluster,
			"database", l.database, slog.Duration("took", time.Since(l.visitor.Arrived).Round(time.Microsecond)))
	}
	return list
}
