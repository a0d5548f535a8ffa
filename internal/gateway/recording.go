package gateway

import (
	"strings"
	"time"

	"github.com/daypass/daypass/internal/audit"
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
	// principals bounds what is written about the sessions of each principal: beyond the
	// bound, logons with the principal's credentials are refused.
	principals *throttle.Keys[string]
}

func newRecorder(auditor Auditor, now func() time.Time) *recorder {
	return &recorder{audit: auditor, now: now, strangers: throttle.NewLines(strangerLines, AllStrangerLines),
		refused: throttle.NewLines(strangerLines, AllStrangerLines), principals: throttle.NewKeys[string](throttle.Limit{}, maxPrincipals)}
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
	r.principals.Charge(principalKey(record.Principal), record.Size(), r.now())
	return r.audit.Logon(*record)
}

// sessionEnd writes the record of a session's end.
func (r *recorder) sessionEnd(record *audit.SessionRecord) error {
	r.principals.Charge(principalKey(record.Principal), record.Size(), r.now())
	return r.audit.SessionEnd(*record)
}
