package sts

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"

	"github.com/daypass/daypass/internal/directory"
)

// signingAlgorithms are those that providers may use. Symmetric ones are not among
// them, and "none" is not one.
var signingAlgorithms = []jose.SignatureAlgorithm{jose.RS256, jose.ES256, jose.EdDSA}

const (
	// keysFresh is how long keys are used without asking again, so that a key
	// that the provider has withdrawn is out of use.
	keysFresh = 15 * time.Minute
	// keysStale is how long they are used while the provider does not answer.
	keysStale = time.Hour
	// fetchTimeout is for discovery and keys together.
	fetchTimeout = 5 * time.Second
	// fetchPause is between two attempts when the first has failed.
	fetchPause = 5 * time.Second
	// A token with an unknown key asks for fresh keys. Anybody can send one, so
	// there are so many fetches in so long a time and no more.
	fetchBurst = 5
	fetchEvery = 30 * time.Second

	maxDocument = 1 << 20
)

// keySource has the public keys of one identity provider, from a file or by
// discovery (OpenID Connect Discovery 1.0; RFC 7517).
type keySource struct {
	issuer   string
	jwksFile string
	caFile   string
	current  atomic.Pointer[keySet]

	mu       sync.Mutex // one fetch at a time; it guards
	failure  error      // the last fetch's,
	failed   time.Time  // and when,
	allowed  float64    // fetches left, and
	refilled time.Time  // when they were counted
}

type keySet struct {
	keys    []jose.JSONWebKey
	read    time.Time
	changed time.Time // of the file
}

// source returns the keys' source for a provider.
func (w *WebIdentities) source(p *directory.Provider) *keySource {
	key := sourceKey{p.Issuer, p.JWKSFile, p.CAFile}
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.sources[key]
	if s == nil {
		s = &keySource{issuer: p.Issuer, jwksFile: p.JWKSFile, caFile: p.CAFile, allowed: fetchBurst}
		if w.sources == nil {
			w.sources = make(map[sourceKey]*keySource)
		}
		w.sources[key] = s
	}
	return s
}

// verify returns nil when one of the provider's keys has signed the token.
func (s *keySource) verify(ctx context.Context, now time.Time, jws *jose.JSONWebSignature) error {
	known, err := s.keys(ctx, now)
	if err != nil {
		return err
	}
	if known.verify(jws) {
		return nil
	}
	// The key may be younger than our copy (OpenID Connect Core 1.0, section
	// 10.1.1).
	fresh, err := s.refresh(ctx, now, known)
	if err != nil {
		return err
	}
	if !fresh.verify(jws) {
		return ErrBadSignature
	}
	return nil
}

// verify tries the keys that the token names, or all when it names none.
func (s *keySet) verify(jws *jose.JSONWebSignature) bool {
	if s == nil || len(jws.Signatures) != 1 {
		return false
	}
	header := jws.Signatures[0].Header
	for i := range s.keys {
		key := &s.keys[i]
		if header.KeyID != "" && key.KeyID != header.KeyID || key.Algorithm != "" && key.Algorithm != header.Algorithm {
			continue
		}
		if _, err := jws.Verify(key); err == nil {
			return true
		}
	}
	return false
}

// keys returns the keys to begin with.
func (s *keySource) keys(ctx context.Context, now time.Time) (*keySet, error) {
	set := s.current.Load()
	if s.jwksFile == "" && set != nil && now.Sub(set.read) < keysFresh {
		return set, nil
	}
	fresh, err := s.refresh(ctx, now, set)
	switch {
	case err == nil && fresh != nil:
		return fresh, nil
	case set != nil && (s.jwksFile != "" || now.Sub(set.read) < keysStale):
		return set, nil
	case err == nil:
		err = ErrUnreachable
	}
	return nil, err
}

// refresh reads the keys again unless somebody has done so since known was
// current, the provider has just failed to answer, or too many have asked. What it
// returns may be known itself.
func (s *keySource) refresh(ctx context.Context, now time.Time, known *keySet) (*keySet, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if set := s.current.Load(); set != known {
		return set, nil
	}
	if s.jwksFile != "" {
		return s.readFile(now, known)
	}
	if s.failure != nil && now.Sub(s.failed) < fetchPause && !now.Before(s.failed) {
		return nil, s.failure
	}
	if !s.allowLocked(now) {
		return known, nil
	}
	set, err := s.fetch(ctx, now)
	if err != nil {
		s.failure, s.failed = fmt.Errorf("%w: %w", ErrUnreachable, err), now
		return nil, s.failure
	}
	s.failure = nil
	s.current.Store(set)
	return set, nil
}

// allowLocked is a token bucket.
func (s *keySource) allowLocked(now time.Time) bool {
	if !s.refilled.IsZero() && now.After(s.refilled) {
		s.allowed = min(fetchBurst, s.allowed+now.Sub(s.refilled).Seconds()/fetchEvery.Seconds())
	}
	s.refilled = now
	if s.allowed < 1 {
		return false
	}
	s.allowed--
	return true
}

// readFile reads the file when it is another one than last time.
func (s *keySource) readFile(now time.Time, known *keySet) (*keySet, error) {
	info, err := os.Stat(s.jwksFile)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	if known != nil && info.ModTime().Equal(known.changed) {
		return known, nil
	}
	data, err := os.ReadFile(s.jwksFile)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	keys, err := parseKeys(data)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrUnreachable, s.jwksFile, err)
	}
	set := &keySet{keys: keys, read: now, changed: info.ModTime()}
	s.current.Store(set)
	return set, nil
}

// CheckKeyFile returns nil when the file has a JWK set with a key that a provider's
// tokens can be signed with.
func CheckKeyFile(path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if _, err := parseKeys(data); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// fetch discovers the provider and reads its keys. Discovery is repeated each
// time, since the keys may have moved. It is not ended with the call that it is
// for: others wait for it.
func (s *keySource) fetch(ctx context.Context, now time.Time) (*keySet, error) {
	client, err := s.client()
	if err != nil {
		return nil, err
	}
	defer client.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), fetchTimeout)
	defer cancel()
	provider, err := oidc.NewProvider(oidc.ClientContext(ctx, client), s.issuer)
	if err != nil {
		return nil, err
	}
	var document struct {
		JWKS string `json:"jwks_uri"`
	}
	if err := provider.Claims(&document); err != nil {
		return nil, err
	}
	if strings.HasPrefix(s.issuer, "https://") && !strings.HasPrefix(document.JWKS, "https://") {
		return nil, errors.New("jwks_uri is not an https URL")
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, document.JWKS, nil)
	if err != nil {
		return nil, err
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("reading keys: %s", response.Status)
	}
	data, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, fmt.Errorf("reading keys: %w", err)
	}
	keys, err := parseKeys(data)
	if err != nil {
		return nil, err
	}
	return &keySet{keys: keys, read: now}, nil
}

// client follows no redirect away from TLS and reads no endless document.
func (s *keySource) client() (*http.Client, error) {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	if s.caFile != "" {
		pem, err := os.ReadFile(s.caFile)
		if err != nil {
			return nil, err
		}
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s has no certificate", s.caFile)
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	return &http.Client{
		Transport: bounded{transport},
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			if len(via) >= 3 || via[0].URL.Scheme == "https" && r.URL.Scheme != "https" {
				return errors.New("redirected too often or away from https")
			}
			return nil
		},
	}, nil
}

// bounded cuts off bodies that are too long.
type bounded struct{ *http.Transport }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := b.Transport.RoundTrip(r)
	if err == nil {
		response.Body = http.MaxBytesReader(nil, response.Body, maxDocument)
	}
	return response, err
}

// parseKeys reads a JWK set. Keys that cannot be for us are left out, as RFC 7517,
// section 5, asks for; a set that leaves none is an error.
func parseKeys(data []byte) ([]jose.JSONWebKey, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(data, &set); err != nil {
		return nil, fmt.Errorf("JWK set: %w", err)
	}
	var keys []jose.JSONWebKey
	for _, raw := range set.Keys {
		var key jose.JSONWebKey
		if json.Unmarshal(raw, &key) != nil || key.Use != "" && key.Use != "sig" || !key.Valid() {
			continue
		}
		switch public := key.Key.(type) {
		case *rsa.PublicKey:
			if public.N.BitLen() < 2048 {
				continue
			}
		case *ecdsa.PublicKey, ed25519.PublicKey:
		default:
			continue
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, errors.New("JWK set has no RSA, P-256 or Ed25519 key for signatures")
	}
	return keys, nil
}
