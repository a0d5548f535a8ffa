package gateway

import (
	"strings"
	"time"

	"github.com/daypass/daypass/internal/audit"
	"github.com/daypass/daypass/internal/throttle"
)

// What strangers can have written to the audit log and the log: one address, and all
// of them. The holders of credentials have as much, by address and credential, for
// logons that are refused. They do not change.
var (
	strangerLines    = throttle.Limit{Rate: 10, Burst: 1000, Bytes: 4 << 10, BytesBurst: 1 << 20}
	AllStrangerLines = throttle.Limit{Rate: 100, Burst: 10_000, Bytes: 32 << 10, BytesBurst: 8 << 20}
)

// maxPrincipals is how many principals are told apart.
const maxPrincipals = 1 << 16

// recorder writes the audit records of logons and sessions, and bounds them. Safe for
// concurrent use.
type recorder struct {
	audit Auditor
	now   func() time.Time
	// strangers bounds what is written down of peers without a good credential, refused
	// of those who have one and are refused for another reason.
	strangers, refused *throttle.Lines
	// principals bounds what is written of sessions: beyond it, those who log on with
	// credentials of the principal have to wait.
	principals *throttle.Keys[string]
}

func newRecorder(auditor Auditor, now func() time.Time) *recorder {
	return &recorder{audit: auditor, now: now, strangers: throttle.NewLines(strangerLines, AllStrangerLines),
		refused: throttle.NewLines(strangerLines, AllStrangerLines), principals: throttle.NewKeys[string](throttle.Limit{}, maxPrincipals)}
}

// SetPrincipalLimit sets what may be written to the audit log of the logons and sessions
// of one principal: Bytes and BytesBurst of the limit. A principal that has caused more
// cannot log on until it has waited. A Server begins without a limit.
func (s *Server) SetPrincipalLimit(l throttle.Limit) {
	s.record.principals.SetLimit(throttle.Limit{Bytes: l.Bytes, BytesBurst: l.BytesBurst})
}

// principalKey is what the bounds know a principal by: the IAM user, or the IAM role,
// whose sessions' names are the caller's to choose.
func principalKey(arn string) string {
	head, kind, found := strings.Cut(arn, ":assumed-role/")
	if !found {
		return arn
	}
	role, _, _ := strings.Cut(kind, "/")
	return head + ":assumed-role/" + role
}

// mayLogOn reports whether the principal may log on; tell: the refusal is worth a
// line, which one a second is.
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
	r.principals.Charge(principalKey(record.Principal), record.Size(), r.now())
	return r.audit.Logon(*record)
}

// sessionEnd writes the record of a session's end.
func (r *recorder) sessionEnd(record *audit.SessionRecord) error {
	r.principals.Charge(principalKey(record.Principal), record.Size(), r.now())
	return r.audit.SessionEnd(*record)
}
