package config

// Audit bounds the audit log.
type Audit struct {
	PrincipalBytes int // a second, of the calls of one principal; 0: no limit
}

func (a *Audit) read(s *section) {
	a.PrincipalBytes = s.integer("principal_bytes")
	if n := a.PrincipalBytes; n > 0 && n < leastPrincipalBytes {
		s.errorf("principal_bytes", "is %d, want 0 for no limit, or at least %d: a line of the log may have 8192 bytes", n, leastPrincipalBytes)
	}
}

// leastPrincipalBytes is enough for one line a second, which records refusals.
const leastPrincipalBytes = 16 << 10
