package config

// Audit bounds the audit log.
type Audit struct {
	PrincipalBytes int // per second, for the calls of one principal; 0: no limit
}

func (a *Audit) read(s *section) {
	a.PrincipalBytes = s.integer("principal_bytes")
	if n := a.PrincipalBytes; n > 0 && n < leastPrincipalBytes {
		s.errorf("principal_bytes", "is %d, want 0 for no limit, or at least %d: a line of the log may have 8192 bytes", n, leastPrincipalBytes)
	}
}

// leastPrincipalBytes is the smallest limit: enough for one line a second that records a
// refusal.
const leastPrincipalBytes = 16 << 10
