package sts_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/daypass/daypass/internal/directory"
	"github.com/daypass/daypass/internal/sts"
)

// The bounds that docs/identities.md states.
const (
	fresh = 15 * time.Minute // the provider answers
	stale = time.Hour        // it does not
	young = 10 * time.Second // for a new key
)

// visitor verifies tokens that signers made, at times that the test chooses.
type visitor struct {
	t   *testing.T
	i   *issuer
	d   *directory.Directory
	ids *sts.WebIdentities
}

func newVisitor(t *testing.T) *visitor {
	i := newIssuer(t)
	return &visitor{t, i, i.directory(t), &sts.WebIdentities{}}
}

func (v *visitor) verify(now time.Time, s signer) error {
	v.t.Helper()
	token := s.sign(v.t, v.i.claims(claims{"iat": now.Unix(), "exp": now.Unix() + 300}))
	_, err := v.ids.Verify(context.Background(), v.d, now, token)
	return err
}

// However the provider fails, and whatever strangers send, a key is used for exactly an hour
// after it was read.
func TestKeysGoOutOfUseWhileTheProviderFails(t *testing.T) {
	held, invented := newSigner(t, "held", jose.EdDSA), newSigner(t, "invented", jose.EdDSA)
	text := func(s string) *string { return &s }
	for name, fail := range map[string]func(*issuer){
		"503":                              func(i *issuer) { i.down.Store(true) },
		"the connection is refused":        func(i *issuer) { i.Close() },
		"no JSON":                          func(i *issuer) { i.body.Store(text("<html>")) },
		"no keys member":                   func(i *issuer) { i.body.Store(text("{}")) },
		"keys that are null":               func(i *issuer) { i.body.Store(text(`{"keys":null}`)) },
		"keys at a host that is not there": func(i *issuer) { i.moved.Store(text("http://127.0.0.1:1/keys")) },
		"keys under no URL":                func(i *issuer) { i.moved.Store(text("::")) },
	} {
		t.Run(name, func(t *testing.T) {
			v := newVisitor(t)
			v.i.keys.Store(publish(held))
			if err := v.verify(start, held); err != nil {
				t.Fatal(err)
			}
			fail(v.i)
			accepted := time.Duration(0)
			for at := time.Second; at < 24*time.Hour; at += 293 * time.Second {
				for range 3 {
					if err := v.verify(start.Add(at), invented); err == nil {
						t.Fatalf("%v: an invented key was accepted", at)
					}
				}
				switch err := v.verify(start.Add(at), held); {
				case err == nil:
					accepted = at
				case !errors.Is(err, sts.ErrUnreachable):
					t.Fatalf("%v: got %v, want ErrUnreachable", at, err)
				}
			}
			if accepted >= stale || accepted < stale-293*time.Second {
				t.Errorf("the key was accepted for %v, want %v", accepted, stale)
			}
			state := v.ids.States(v.d, start.Add(2*stale))[0]
			if state.Keys != 0 || !errors.Is(state.Err, sts.ErrUnreachable) {
				t.Errorf("States = %+v, want no keys and the reason", state)
			}
		})
	}
}

// While the provider answers, keys that it has withdrawn are refused a quarter of an hour after
// they were last read, whether or not strangers send tokens.
func TestWithdrawnKeysGoOutOfUse(t *testing.T) {
	held, next, invented := newSigner(t, "held", jose.EdDSA), newSigner(t, "next", jose.EdDSA), newSigner(t, "invented", jose.EdDSA)
	for name, then := range map[string]*jose.JSONWebKeySet{
		"another key": publish(next), "no key": {Keys: []jose.JSONWebKey{}},
		"a key that is not for signatures": {Keys: []jose.JSONWebKey{{Key: next.key.Public(), Use: "enc"}}},
	} {
		for _, strangers := range []bool{false, true} {
			v := newVisitor(t)
			v.i.keys.Store(publish(held, next))
			if err := v.verify(start, held); err != nil {
				t.Fatal(err)
			}
			v.i.keys.Store(then)
			if strangers {
				// The stranger's token makes us fetch at once, and the new set replaces the
				// old one.
				_ = v.verify(start.Add(time.Second), invented)
				if err := v.verify(start.Add(2*time.Second), held); !errors.Is(err, sts.ErrBadSignature) {
					t.Errorf("%s, asked for by a stranger: got %v, want ErrBadSignature", name, err)
				}
				continue
			}
			if err := v.verify(start.Add(fresh-time.Second), held); err != nil {
				t.Errorf("%s, before its time: %v", name, err)
			}
			if err := v.verify(start.Add(fresh), held); !errors.Is(err, sts.ErrBadSignature) {
				t.Errorf("%s: got %v, want ErrBadSignature", name, err)
			}
			if err := v.verify(start.Add(fresh), next); (err == nil) != (name == "another key") {
				t.Errorf("%s: the other key: %v", name, err)
			}
		}
	}
}

// Strangers cannot keep a new key out, nor make us ask the provider all the time.
func TestStrangersDoNotKeepNewKeysOut(t *testing.T) {
	v := newVisitor(t)
	old, invented := newSigner(t, "0", jose.EdDSA), newSigner(t, "invented", jose.EdDSA)
	v.i.keys.Store(publish(old))
	now := start
	longest := time.Duration(0)
	for n := range 5 {
		next := newSigner(t, string(rune('a'+n)), jose.EdDSA)
		for i := range 300 { // a minute
			now = now.Add(200 * time.Millisecond)
			_ = v.verify(now, invented)
			if i%5 == 0 {
				_ = v.verify(now.Add(-29*time.Second), invented) // the call's body arrived slowly
			}
		}
		v.i.keys.Store(publish(next))
		published := now
		for v.verify(now, next) != nil {
			if now = now.Add(200 * time.Millisecond); now.Sub(published) > 2*young {
				t.Fatal("the new key is kept out")
			}
			_ = v.verify(now, invented)
		}
		longest = max(longest, now.Sub(published))
	}
	if longest > young {
		t.Errorf("a new key was kept out for %v, want at most %v", longest, young)
	}
	if n, most := v.i.fetched.Load(), int32(now.Sub(start)/young)+7; n > most {
		t.Errorf("strangers made %d reads in %v, want at most %d", n, now.Sub(start), most)
	}
}

// The clock may be wrong, and be put right.
func TestKeysAndTheClock(t *testing.T) {
	held := newSigner(t, "held", jose.EdDSA)
	for _, row := range []struct {
		name string
		at   time.Duration
		want error // with a provider that is down
	}{
		{"a second back", -time.Second, nil},
		{"two hours back", -2 * time.Hour, sts.ErrUnreachable},
		{"a year back", -365 * 24 * time.Hour, sts.ErrUnreachable},
		{"half an hour ahead", 30 * time.Minute, nil},
		{"two hours ahead", 2 * time.Hour, sts.ErrUnreachable},
	} {
		v := newVisitor(t)
		v.i.keys.Store(publish(held))
		if err := v.verify(start, held); err != nil {
			t.Fatal(err)
		}
		v.i.down.Store(true)
		if err := v.verify(start.Add(row.at), held); !errors.Is(err, row.want) {
			t.Errorf("%s: got %v, want %v", row.name, err, row.want)
		}
		v.i.down.Store(false)
		if err := v.verify(start.Add(row.at).Add(10*time.Second), held); err != nil {
			t.Errorf("%s, and the provider is there again: %v", row.name, err)
		}
	}
}

// TestPauseAndLateCalls: calls that began before an attempt failed, for example because they waited
// for it, do not skip the pause before the next attempt.
func TestPauseAndLateCalls(t *testing.T) {
	v := newVisitor(t)
	held := newSigner(t, "held", jose.EdDSA)
	text := "no JSON"
	v.i.body.Store(&text)
	for i := range 40 {
		now := start.Add(time.Duration(i) * time.Second / 8) // five seconds
		for _, late := range []time.Duration{0, 6 * time.Second, 29 * time.Second} {
			if err := v.verify(now.Add(-late), held); !errors.Is(err, sts.ErrUnreachable) {
				t.Fatalf("%v, %v late: got %v, want ErrUnreachable", now, late, err)
			}
		}
	}
	if n := v.i.fetched.Load(); n != 1 {
		t.Errorf("%d reads within the pause, want 1", n)
	}
	if err := v.verify(start.Add(time.Minute), held); !errors.Is(err, sts.ErrUnreachable) || v.i.fetched.Load() != 2 {
		t.Errorf("after the pause: %d reads, %v, want 2", v.i.fetched.Load(), err)
	}
}

// TestPauseAfterASlowAttempt: the pause begins when an attempt has failed. Otherwise a provider that
// hangs for as long as the pause would be asked all the time.
func TestPauseAfterASlowAttempt(t *testing.T) {
	v := newVisitor(t)
	held := newSigner(t, "held", jose.EdDSA)
	text := "no JSON"
	v.i.body.Store(&text)
	wait := make(chan struct{})
	v.i.hang.Store(&wait)
	const slow = 200 * time.Millisecond
	time.AfterFunc(slow, func() { close(wait) })
	if err := v.verify(start, held); !errors.Is(err, sts.ErrUnreachable) {
		t.Fatal(err)
	}
	if err := v.verify(start.Add(5*time.Second+slow/2), held); !errors.Is(err, sts.ErrUnreachable) {
		t.Fatal(err)
	}
	if n := v.i.fetched.Load(); n != 1 {
		t.Errorf("%d reads within 5 s after one that took %v, want 1", n, slow)
	}
}

// TestHangingProvider: as long as the cached keys may still be used, a provider that hangs delays
// only one call per attempt to read its keys.
func TestHangingProvider(t *testing.T) {
	v := newVisitor(t)
	held := newSigner(t, "held", jose.EdDSA)
	v.i.keys.Store(publish(held))
	if err := v.verify(start, held); err != nil {
		t.Fatal(err)
	}
	wait := make(chan struct{})
	v.i.hang.Store(&wait)
	results := make(chan error, 9)
	for range cap(results) {
		go func() { results <- v.verify(start.Add(fresh), held) }()
	}
	for n := range cap(results) - 1 {
		if err := <-results; err != nil { // the provider has not answered yet
			t.Errorf("call %d: %v", n, err)
		}
	}
	close(wait)
	if err := <-results; err != nil {
		t.Errorf("the call that asked: %v", err)
	}
}

// The file's current content decides which keys are in use, and Changed reports it.
func TestWhatTheKeyFileHolds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "jwks.json")
	d, err := directory.New(directory.Spec{Account: "123456789012", Region: "us-east-1",
		Providers: []directory.Provider{{Issuer: "https://idp.example.com", Audiences: []string{"daypass"}, JWKSFile: path}}})
	if err != nil {
		t.Fatal(err)
	}
	one, two := newSigner(t, "1", jose.EdDSA), newSigner(t, "2", jose.EdDSA)
	var mu sync.Mutex
	var told []sts.KeyState
	ids := &sts.WebIdentities{Changed: func(s sts.KeyState) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, s)
	}}
	verify := func(s signer) error {
		token := s.sign(t, claims{"iss": "https://idp.example.com", "sub": "a", "aud": "daypass", "exp": start.Unix() + 300})
		_, err := ids.Verify(context.Background(), d, start, token)
		return err
	}
	set := func(signers ...signer) string {
		text, _ := json.Marshal(publish(signers...))
		return string(text)
	}
	type outcome struct {
		keys int
		bad  bool // it cannot be read
		told bool
	}
	for n, row := range []struct {
		name     string
		text     string // empty: no file
		one, two error
		outcome
	}{
		{"one", set(one), nil, sts.ErrBadSignature, outcome{1, false, false}},
		{"both", set(one, two), nil, nil, outcome{2, false, false}},
		{"the other, of the same size and time", set(two), sts.ErrBadSignature, nil, outcome{1, false, false}},
		{"emptied set", `{"keys":[]}`, sts.ErrBadSignature, sts.ErrBadSignature, outcome{0, false, true}},
		{"filled again", set(one), nil, sts.ErrBadSignature, outcome{1, false, true}},
		{"deleted", "", sts.ErrUnreachable, sts.ErrUnreachable, outcome{0, true, true}},
		{"emptied", " ", sts.ErrUnreachable, sts.ErrUnreachable, outcome{0, true, false}},
		{"cut off", set(one)[:20], sts.ErrUnreachable, sts.ErrUnreachable, outcome{0, true, false}},
		{"null", `null`, sts.ErrUnreachable, sts.ErrUnreachable, outcome{0, true, false}},
		{"too large", set(one) + string(slices.Repeat([]byte{' '}, 1<<20)), sts.ErrUnreachable, sts.ErrUnreachable, outcome{0, true, false}},
		{"back", set(two), sts.ErrBadSignature, nil, outcome{1, false, true}},
	} {
		if err := os.Remove(path); err != nil && n > 0 {
			t.Fatal(err)
		}
		if row.text != "" {
			if err := os.WriteFile(path, []byte(row.text), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chtimes(path, start, start); err != nil {
				t.Fatal(err)
			}
		}
		told = nil
		state := ids.States(d, start)[0]
		if state.Keys != row.keys || (state.Err != nil) != row.bad || state.File != path {
			t.Errorf("%s: States = %+v, want %d keys", row.name, state, row.keys)
		}
		if err := verify(one); !errors.Is(err, row.one) {
			t.Errorf("%s: the first key: got %v, want %v", row.name, err, row.one)
		}
		if err := verify(two); !errors.Is(err, row.two) {
			t.Errorf("%s: the second key: got %v, want %v", row.name, err, row.two)
		}
		if len(told) > 1 || (len(told) == 1) != row.told {
			t.Errorf("%s: told %+v, want one change: %t", row.name, told, row.told)
		}
		if err := sts.CheckKeyFile(path); (err == nil) != (row.keys > 0) {
			t.Errorf("%s: CheckKeyFile = %v", row.name, err)
		}
		_ = os.WriteFile(path, []byte(row.text), 0o600)
	}
}
