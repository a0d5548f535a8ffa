package server

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/daypass/daypass/internal/config"
	"github.com/daypass/daypass/internal/credential"
	"github.com/daypass/daypass/internal/fleet"
	"github.com/daypass/daypass/internal/gateway"
	"github.com/daypass/daypass/internal/keyring"
)

// startPatience is the default of Options.StartPatience.
const startPatience = 40 * time.Second

// member is this server as one of several.
type member struct {
	*fleet.Fleet
	roots   *keyring.Roots
	peers   *peers // nil: none are configured
	fixed   fleet.Self
	varying atomic.Pointer[func(*fleet.Self)] // fills in what changes while the server runs; nil: it does not serve yet
	leaving atomic.Bool                       // the server was asked to stop
	changed chan struct{}                     // holds one element after a change of the keys
	stop    func()                            // ends the member, and waits until it has ended
}

// joinFleet reads the keys that the servers share. It returns once this server has a key that
// signs.
func joinFleet(ctx context.Context, cfg *config.Config, revoked *revocations, opts Options) (_ *member, err error) {
	store, ok := revoked.store.(fleet.Store)
	if !ok {
		return nil, cfg.Fault("root_key", errors.New("needs registry.etcd"))
	}
	roots, err := readRoot(ctx, cfg)
	if err != nil {
		return nil, err
	}
	var mark [1]byte
	rand.Read(mark[:]) // never fails
	m := &member{roots: roots, changed: make(chan struct{}, 1),
		fixed: fleet.Self{ID: serverName(), Release: opts.Version, Started: opts.Now().UTC().Truncate(time.Second), Mark: mark[0]}}
	// The first announcement has the address for peers, so that they know it before this server has
	// a session.
	if cfg.Peers != nil {
		if m.peers, err = openPeers(cfg, m, opts); err != nil {
			return nil, err
		}
		m.fixed.Peers = m.peers.address
		defer func() {
			if err != nil {
				m.peers.listener.Close()
			}
		}()
	}
	patience := cmp.Or(opts.StartPatience, startPatience)
	first, over := context.WithTimeout(ctx, patience)
	defer over()
	m.Fleet, err = fleet.Open(first, fleet.Config{
		Store: store, Roots: roots, Now: opts.Now, Self: m.announced, Legacy: legacyKeyring(cfg),
		Changed: func() {
			select {
			case m.changed <- struct{}{}:
			default:
			}
		},
		Problem: func(about string, err error) { tellProblem(opts.Log, about, err) },
	})
	if err != nil {
		return nil, cfg.Fault("root_key", err)
	}
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	go func() { defer close(done); m.Run(running) }()
	m.stop = func() { cancel(); <-done }
	if err := m.WaitSigning(first); err != nil {
		m.stop()
		return nil, cfg.Fault("root_key", fmt.Errorf("this server has no key that signs after %v: %w", patience, err))
	}
	return m, nil
}

func tellProblem(log *slog.Logger, about string, err error) {
	if err != nil {
		log.Warn("sharing keys with the other servers", "about", about, "err", err)
	} else {
		log.Info("sharing keys with the other servers works again", "about", about)
	}
}

// leave retires the key of this server.
func (m *member) leave() {
	m.stop()
	m.Leave(context.Background())
}

// describe registers varying, which fills in what changes while the server runs.
func (m *member) describe(varying func(*fleet.Self)) {
	m.varying.Store(&varying)
	m.Announce()
}

func (m *member) announced() fleet.Self {
	self := m.fixed
	self.Leaving = m.leaving.Load()
	if varying := m.varying.Load(); varying != nil {
		(*varying)(&self)
	}
	return self
}

// others returns the names of the other servers that are alive.
func (m *member) others() (names []string) {
	for _, s := range m.Servers() {
		if s.ID != m.fixed.ID {
			names = append(names, s.ID)
		}
	}
	return names
}

// configuration returns a hash of a configuration for the announcement, and hashes of its parts.
// Equal configurations have equal hashes, which do not help to guess the content.
func (m *member) configuration(cfg *config.Config) (all string, parts map[string]string) {
	key := m.roots.Derive("configuration")[0]
	hash := func(size int, data ...[]byte) string {
		mac := hmac.New(sha256.New, key[:])
		for _, part := range data {
			mac.Write(part)
		}
		return hex.EncodeToString(mac.Sum(nil)[:size])
	}
	parts = make(map[string]string, len(cfg.Parts))
	for name, sum := range cfg.Parts {
		parts[name] = hash(4, sum[:], []byte(name))
	}
	return hash(8, cfg.Common[:]), parts
}

// serverName names this process among the servers: by the machine's name, and a random part,
// so that a restarted server has another name.
func serverName() string {
	host, _ := os.Hostname()
	host = strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '-', r == '.':
			return r
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		}
		return '-'
	}, host)
	return host[:min(len(host), 80)] + "-" + strings.ToLower(rand.Text()[:6])
}

// check checks a credential for the gateway. An unknown key may have been published a moment
// ago, so check waits for the latest keys. A server that cannot read the keys, or was frozen,
// does not know which keys are revoked, so it refuses all credentials.
func (s *service) check(password string) (credential.Grant, error) {
	if s.member != nil && s.member.Err() != nil {
		s.member.Await()
		if err := s.member.Err(); err != nil {
			return credential.Grant{}, fmt.Errorf("%w: %w", gateway.ErrKeysUnknown, err)
		}
	}
	grant, err := credential.Check(s.keys.Current().Verifier(), password, s.opts.Now())
	if s.member != nil && errors.Is(err, credential.ErrUnknownKey) {
		s.member.Await()
		grant, err = credential.Check(s.keys.Current().Verifier(), password, s.opts.Now())
	}
	return grant, err
}

// announced fills in what changes about this server.
func (s *service) announced(self *fleet.Self) {
	cfg := s.live.Load().cfg
	self.Config, self.ConfigParts = s.member.configuration(cfg)
	self.ConfigRead = time.Unix(s.configRead.Load(), 0).UTC()
	for _, of := range s.front.Stats().Clusters {
		self.Sessions += of.Sessions
	}
}

// Keys gives an operator access to the keys that the servers of a configuration share. Close
// it after use.
type Keys struct {
	fleet.Operator
	close func() error
}

// OpenKeys opens the registry of a configuration that has a root key. It works without a
// running server.
func OpenKeys(ctx context.Context, cfg *config.Config, now func() time.Time) (*Keys, error) {
	roots, err := readRoot(ctx, cfg)
	if err != nil {
		return nil, err
	}
	store, err := openStore(cfg, nil)
	if err != nil {
		return nil, cfg.Fault("registry.etcd", err)
	}
	return &Keys{fleet.Operator{Store: store, Roots: roots, Now: now}, store.Close}, nil
}

// Close closes the registry.
func (k *Keys) Close() error { return k.close() }
