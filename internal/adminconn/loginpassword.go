package adminconn

import (
	"sync"

	"github.com/daypass/daypass/internal/keyring"
)

// loginPassword is the password of the administrative login. If it comes from a file, the
// file is read again when the server refuses the password, since it may have been replaced
// without a SIGHUP. Safe for concurrent use.
type loginPassword struct {
	read func() (keyring.Secret, error) // nil: the password never changes

	mu      sync.Mutex // guards what follows
	current string
}

func (p *loginPassword) get() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.current
}

// another reports whether there is now a different password from the refused one.
func (p *loginPassword) another(refused string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.current == refused && p.read != nil {
		if secret, err := p.read(); err == nil && secret != "" {
			p.current = secret.Reveal()
		}
	}
	return p.current != refused
}
