package registry_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/daypass/daypass/internal/registry"
	"github.com/daypass/daypass/internal/registry/registrytest"
)

// run starts a registry on a store, and waits until it has read it.
func run(t *testing.T, config registry.Config) *registry.Registry {
	t.Helper()
	r := registry.New(config)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := r.Run(ctx); err != nil {
			t.Errorf("Run() = %v", err)
		}
	}()
	t.Cleanup(func() { stop(); <-done })
	return r
}

func ready(t *testing.T, r *registry.Registry) *registry.Registry {
	t.Helper()
	if err := r.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	return r
}

const (
	ana     = "arn:aws:iam::123456789012:user/ana"
	session = "arn:aws:sts::123456789012:assumed-role/etl/nightly"
)

// TestSelectors: which credentials each revocation affects, and which it does not.
func TestSelectors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		one := registry.Credential{ID: "ONE", Principal: ana, Cluster: "east", DBUser: "alice", IssuedAt: now.Add(-time.Minute).Truncate(time.Second)}
		other := one
		other.ID = "OTHER"
		byRole := other
		byRole.Principal = session
		west := other
		west.Cluster = "west"
		bob := other
		bob.DBUser = "bob"
		later := one
		later.IssuedAt = now.Add(2 * time.Second)
		all := map[string]registry.Credential{"one": one, "other": other, "byRole": byRole, "west": west, "bob": bob, "later": later}
		rows := []struct {
			revocation registry.Revocation
			revoked    string // those of all that are revoked, in the order below
		}{
			{registry.Revocation{CredentialID: "ONE"}, "one later"},
			{registry.Revocation{CredentialID: "ONE", IssuedBefore: now}, "one"},
			{registry.Revocation{Principal: ana}, "one other west bob"},
			{registry.Revocation{Principal: session}, "byRole"},
			{registry.Revocation{Principal: "arn:aws:sts::123456789012:assumed-role/etl"}, "byRole"},
			{registry.Revocation{Principal: "arn:aws:iam::123456789012:role/jobs/etl"}, "byRole"},
			{registry.Revocation{Principal: "arn:aws:iam::123456789012:role/et"}, ""},
			{registry.Revocation{Principal: "arn:aws:iam::123456789012:user/an"}, ""},
			{registry.Revocation{DBUser: "alice"}, "one other byRole west"},
			{registry.Revocation{DBUser: "alice", Cluster: "west"}, "west"},
			{registry.Revocation{DBUser: "alice", Cluster: "north"}, ""},
			{registry.Revocation{Cluster: "east"}, "one other byRole bob"},
			{registry.Revocation{All: true}, "one other byRole west bob"},
			{registry.Revocation{All: true, IssuedBefore: now.Add(-time.Minute)}, ""},
			{registry.Revocation{All: true, IssuedBefore: one.IssuedAt.Add(time.Nanosecond)}, "one other byRole west bob"},
		}
		for i, row := range rows {
			r := ready(t, run(t, registry.Config{Store: &registrytest.Memory{}}))
			if _, err := r.Revoke(t.Context(), row.revocation); err != nil {
				t.Fatalf("row %d: %v", i, err)
			}
			var got []string
			for _, name := range []string{"one", "other", "byRole", "west", "bob", "later"} {
				revoked, err := r.Revoked(all[name])
				if err != nil {
					t.Fatal(err)
				}
				if revoked {
					got = append(got, name)
				}
			}
			if strings.Join(got, " ") != row.revoked {
				t.Errorf("%+v revokes %q, want %q", row.revocation, got, row.revoked)
			}
		}
	})
}

func TestInvalid(t *testing.T) {
	r := registry.New(registry.Config{Store: &registrytest.Memory{}})
	for _, revocation := range []registry.Revocation{
		{},
		{All: true, Cluster: "east"},
		{All: true, CredentialID: "ONE"},
		{CredentialID: "ONE", Principal: ana},
		{CredentialID: "ONE", Cluster: "east"},
		{Principal: ana, DBUser: "alice"},
		{DBUser: "al\nice"},
		{DBUser: strings.Repeat("x", 300)},
		{DBUser: strings.Repeat("x", 65)},
		{DBUser: "al ice"},
		{DBUser: "alice\u202e"},
		{DBUser: "IAMA:alice"},
		{DBUser: "IAM:alice:analysts"},
		{DBUser: "-alice"},
		{DBUser: "alice", Cluster: "ea/st"},
		{Cluster: "\xff"},
		{Cluster: strings.Repeat("c", 64)},
		{CredentialID: "ONE/TWO"},
		{CredentialID: strings.Repeat("1", 65)},
		{Principal: "ana"},
		{Principal: "arn:aws:iam::123456789012:user/"},
		{Principal: "arn:aws:iam::12345:user/ana"},
		{Principal: "arn:aws:s3:::bucket/ana"},
		{Principal: ana + " "},
		{Principal: ana + "\u00a0"},
		{Principal: ana + strings.Repeat("x", 2048)},
		{All: true, IssuedBefore: time.Now().Add(time.Minute)},
	} {
		if _, err := r.Revoke(t.Context(), revocation); !errors.Is(err, registry.ErrInvalid) {
			t.Errorf("Revoke(%+v) = %v, want ErrInvalid", revocation, err)
		}
	}
}

// TestIdempotent: repeating a revocation changes nothing, a wider one extends it, and a
// narrower one does not reduce it.
func TestIdempotent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &registrytest.Memory{}
		r := ready(t, run(t, registry.Config{Store: store}))
		when := time.Now().Add(-time.Minute)
		revoke := func(revocation registry.Revocation) registry.Revocation {
			t.Helper()
			got, err := r.Revoke(t.Context(), revocation)
			if err != nil {
				t.Fatal(err)
			}
			return got
		}
		first := revoke(registry.Revocation{Principal: ana, IssuedBefore: when, RevokedBy: "a"})
		time.Sleep(time.Second)
		if again := revoke(registry.Revocation{Principal: ana, IssuedBefore: when, RevokedBy: "b"}); again != first {
			t.Errorf("again: %+v, want %+v", again, first)
		}
		if less := revoke(registry.Revocation{Principal: ana, IssuedBefore: when.Add(-time.Hour)}); less != first {
			t.Errorf("less: %+v, want %+v", less, first)
		}
		more := revoke(registry.Revocation{Principal: ana})
		if !more.IssuedBefore.Equal(time.Now()) || !more.RevokedAt.Equal(time.Now()) {
			t.Errorf("more: %+v", more)
		}
		revoke(registry.Revocation{CredentialID: "ONE"})
		if bounded := revoke(registry.Revocation{CredentialID: "ONE", IssuedBefore: when}); !bounded.IssuedBefore.IsZero() {
			t.Errorf("a bound took a revocation back: %+v", bounded)
		}
		list, err := r.Revocations(t.Context())
		if err != nil || len(list) != 2 {
			t.Fatalf("Revocations() = %+v, %v, want 2", list, err)
		}
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				if _, err := r.Revoke(t.Context(), registry.Revocation{Cluster: "east"}); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
	})
}

// TestForgotten: a revocation is deleted once the credentials it affects have expired.
func TestForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &registrytest.Memory{}
		r := ready(t, run(t, registry.Config{Store: store}))
		credential := registry.Credential{ID: "ONE", IssuedAt: time.Now()}
		for i := range 50 {
			if _, err := r.Revoke(t.Context(), registry.Revocation{CredentialID: fmt.Sprint(i)}); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := r.Revoke(t.Context(), registry.Revocation{CredentialID: "ONE"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour + time.Minute)
		if revoked, err := r.Revoked(credential); !revoked || err != nil {
			t.Errorf("an hour later Revoked() = %v, %v", revoked, err)
		}
		time.Sleep(10 * time.Minute)
		if list, err := store.List(t.Context(), ""); len(list) != 0 || err != nil {
			t.Errorf("%d records are left, %v", len(list), err)
		}
		if revoked, err := r.Revoked(credential); revoked || err != nil {
			t.Errorf("Revoked() = %v, %v", revoked, err)
		}
	})
}

// TestClockAhead: a clock that is hours ahead for a while, from the start or later, on this
// machine or on another, makes no revoked credential valid again.
func TestClockAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &registrytest.Memory{}
		var ahead atomic.Int64
		now := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
		r := ready(t, run(t, registry.Config{Store: store, Now: now}))
		credential := registry.Credential{ID: "ONE", IssuedAt: time.Now()}
		if _, err := r.Revoke(t.Context(), registry.Revocation{CredentialID: "ONE"}); err != nil {
			t.Fatal(err)
		}
		ahead.Store(int64(24 * time.Hour))
		time.Sleep(5 * time.Minute)
		other := ready(t, run(t, registry.Config{Store: store, Now: now}))
		time.Sleep(5 * time.Minute)
		ahead.Store(0)
		time.Sleep(time.Minute)
		for _, r := range []*registry.Registry{r, other} {
			if revoked, err := r.Revoked(credential); !revoked || err != nil {
				t.Errorf("the clock right again: Revoked() = %v, %v", revoked, err)
			}
		}
		time.Sleep(registry.Keep)
		if list, err := store.List(t.Context(), ""); len(list) != 0 || err != nil {
			t.Errorf("%d records are left, %v", len(list), err)
		}
	})
}

// TestEverywhere: a revocation reaches another process within a second.
func TestEverywhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &registrytest.Memory{}
		told := make(chan struct{}, 10)
		here := ready(t, run(t, registry.Config{Store: store}))
		there := ready(t, run(t, registry.Config{Store: store, Changed: func() { told <- struct{}{} }}))
		<-told
		if _, err := here.Revoke(t.Context(), registry.Revocation{All: true}); err != nil {
			t.Fatal(err)
		}
		credential := registry.Credential{IssuedAt: time.Now().Add(-time.Second)}
		if revoked, err := here.Revoked(credential); !revoked || err != nil {
			t.Errorf("where it was revoked: %v, %v", revoked, err)
		}
		select {
		case <-told:
		case <-time.After(time.Second):
			t.Fatal("not told within a second")
		}
		if revoked, err := there.Revoked(credential); !revoked || err != nil {
			t.Errorf("elsewhere: %v, %v", revoked, err)
		}
	})
}

// TestFaults: in each row the store fails once, in a different place. Whatever the result
// was, repeating the call puts exactly one revocation in force.
func TestFaults(t *testing.T) {
	broken := errors.New("broken disk")
	for _, row := range []struct {
		method    string
		persisted bool
		exists    bool // an older revocation exists
		inForce   bool // the revocation is in force after the failed call
	}{
		{"Get", false, false, false},
		{"Get", false, true, false},
		{"Create", false, false, false},
		{"Create", true, false, true},
		{"Replace", false, true, false},
		{"Replace", true, true, true},
	} {
		t.Run(fmt.Sprintf("%s persisted=%v exists=%v", row.method, row.persisted, row.exists), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var armed atomic.Bool
				store := &registrytest.Memory{Fail: func(method string, persisted bool) error {
					if method == row.method && persisted == row.persisted && armed.CompareAndSwap(true, false) {
						return broken
					}
					return nil
				}}
				r := ready(t, run(t, registry.Config{Store: store}))
				if row.exists {
					if _, err := r.Revoke(t.Context(), registry.Revocation{Principal: ana, IssuedBefore: time.Now().Add(-time.Hour)}); err != nil {
						t.Fatal(err)
					}
				}
				armed.Store(true)
				if _, err := r.Revoke(t.Context(), registry.Revocation{Principal: ana}); !errors.Is(err, broken) {
					t.Fatalf("Revoke() = %v, want %v", err, broken)
				}
				time.Sleep(time.Second)
				credential := registry.Credential{Principal: ana, IssuedAt: time.Now().Add(-time.Minute)}
				if revoked, err := r.Revoked(credential); revoked != row.inForce || err != nil {
					t.Errorf("after the fault: Revoked() = %v, %v, want %v", revoked, err, row.inForce)
				}
				if _, err := r.Revoke(t.Context(), registry.Revocation{Principal: ana}); err != nil {
					t.Fatal(err)
				}
				if revoked, err := r.Revoked(credential); !revoked || err != nil {
					t.Errorf("after asking again: Revoked() = %v, %v", revoked, err)
				}
				if list, err := r.Revocations(t.Context()); len(list) != 1 || err != nil {
					t.Errorf("Revocations() = %v, %v, want one", list, err)
				}
			})
		})
	}
}

// silent is a store whose watch stops reporting.
type silent struct{ registry.Store }

func (s silent) Watch(ctx context.Context, prefix string, see func([]registry.Record, bool, time.Time)) error {
	see(nil, true, time.Now())
	<-ctx.Done()
	return ctx.Err()
}

// thawed is a store whose watch reports when it is told to.
type thawed struct {
	registry.Store
	next chan time.Time
}

func (s *thawed) Watch(ctx context.Context, prefix string, see func([]registry.Record, bool, time.Time)) error {
	see(nil, true, time.Now())
	for {
		select {
		case asOf := <-s.next:
			see(nil, false, asOf)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// TestFailsClosed: a registry that cannot know what is revoked returns errors, and recovers
// by itself.
func TestFailsClosed(t *testing.T) {
	credential := registry.Credential{IssuedAt: time.Now()}
	t.Run("not started", func(t *testing.T) {
		r := registry.New(registry.Config{Store: &registrytest.Memory{}})
		if _, err := r.Revoked(credential); err == nil {
			t.Error("Revoked() before Run = nil error")
		}
	})
	t.Run("unreadable", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var mu sync.Mutex
			var problem error
			store := &registrytest.Memory{Fail: func(method string, _ bool) error {
				mu.Lock()
				defer mu.Unlock()
				return problem
			}}
			set := func(err error) { mu.Lock(); problem = err; mu.Unlock() }
			var told []error
			r := ready(t, run(t, registry.Config{Store: store, Problem: func(err error) { told = append(told, err) }}))
			if _, err := r.Revoked(credential); err != nil || r.Err() != nil {
				t.Errorf("Revoked() = %v, Err() = %v", err, r.Err())
			}
			set(errors.New("broken disk"))
			time.Sleep(2 * registry.Beat)
			if _, err := r.Revoked(credential); err == nil || !strings.Contains(err.Error(), "broken disk") {
				t.Errorf("Revoked() = %v, want broken disk", err)
			}
			time.Sleep(time.Minute)
			set(nil)
			time.Sleep(2 * registry.Beat)
			if _, err := r.Revoked(credential); err != nil {
				t.Errorf("healed: Revoked() = %v", err)
			}
			synctest.Wait()
			if len(told) != 2 || told[0] == nil || told[1] != nil {
				t.Errorf("told %v, want the problem and its end", told)
			}
		})
	})
	t.Run("stopped", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			store := &thawed{Store: &registrytest.Memory{}, next: make(chan time.Time)}
			r := ready(t, run(t, registry.Config{Store: store}))
			asked := time.Now()
			time.Sleep(time.Minute) // the process was stopped, or the machine was suspended
			store.next <- asked     // the answer from before arrives
			synctest.Wait()
			if _, err := r.Revoked(credential); err == nil || r.Err() == nil {
				t.Error("an answer from before the process was stopped is believed")
			}
			store.next <- time.Now()
			synctest.Wait()
			if _, err := r.Revoked(credential); err != nil {
				t.Errorf("Revoked() = %v", err)
			}
		})
	})
	t.Run("silent", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := ready(t, run(t, registry.Config{Store: silent{&registrytest.Memory{}}}))
			if _, err := r.Revoked(credential); err != nil {
				t.Errorf("Revoked() = %v", err)
			}
			time.Sleep(4 * time.Second)
			if _, err := r.Revoked(credential); err == nil || r.Err() == nil {
				t.Error("a registry that has gone silent is believed")
			}
		})
	})
	for name, value := range map[string]string{
		"no time":     `{"version":1,"all":true,"revoked_at":"2026-01-02T03:04:05Z"}`,
		"version 0":   `{"all":true,"issued_before":"2026-01-02T03:04:05Z","revoked_at":"2026-01-02T03:04:05Z"}`,
		"another key": `{"version":1,"cluster":"east","revoked_at":"2026-01-02T03:04:05Z"}`,
		"not JSON":    `all`,
		"nothing":     `{"version":1}`,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := &registrytest.Memory{}
				r := ready(t, run(t, registry.Config{Store: store}))
				record, err := store.Create(t.Context(), "revocation/all", []byte(value))
				if err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				if _, err := r.Revoked(credential); err == nil {
					t.Error("a record that is not understood is passed over")
				}
				if _, err := r.Revocations(t.Context()); err == nil {
					t.Error("Revocations() passes over it")
				}
				if err := store.Delete(t.Context(), record); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				if _, err := r.Revoked(credential); err != nil {
					t.Errorf("healed: Revoked() = %v", err)
				}
			})
		})
	}
}

// TestTellsEachCauseOnce: causes that alternate are not reported again each time.
func TestTellsEachCauseOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var turn, broken atomic.Int64
		store := &registrytest.Memory{Fail: func(string, bool) error {
			if broken.Load() == 0 {
				return nil
			}
			return fmt.Errorf("member %d is away", turn.Add(1)%3)
		}}
		var told []error
		r := ready(t, run(t, registry.Config{Store: store, Problem: func(err error) { told = append(told, err) }}))
		for range 2 {
			broken.Store(1)
			time.Sleep(time.Minute)
			broken.Store(0)
			time.Sleep(time.Second)
			if err := r.Err(); err != nil {
				t.Errorf("healed: %v", err)
			}
		}
		synctest.Wait()
		if len(told) != 2*(3+1) {
			t.Errorf("told %v, want three causes and the end, twice", told)
		}
	})
}

// slow is a store whose Delete is slow.
type slow struct{ registry.Store }

func (s slow) Delete(ctx context.Context, old registry.Record) error {
	time.Sleep(20 * time.Millisecond)
	return s.Store.Delete(ctx, old)
}

// TestTidyTakesTurns: a thousand expired revocations are deleted soon, and no logon is refused
// meanwhile.
func TestTidyTakesTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &registrytest.Memory{}
		for i := range 1000 {
			at := time.Now().Add(-registry.Keep).UTC().Format(time.RFC3339)
			if _, err := store.Create(t.Context(), fmt.Sprintf("revocation/credential/%d", i), fmt.Appendf(nil, `{"version":1,"credential_id":"%d","revoked_at":%q}`, i, at)); err != nil {
				t.Fatal(err)
			}
		}
		r := ready(t, run(t, registry.Config{Store: slow{store}}))
		time.Sleep(registry.Keep)
		for began := time.Now(); time.Since(began) < time.Minute; time.Sleep(10 * time.Millisecond) {
			if err := r.Err(); err != nil {
				t.Fatalf("after %v: %v", time.Since(began), err)
			}
		}
		if list, err := store.List(t.Context(), ""); len(list) != 0 || err != nil {
			t.Errorf("%d records are left, %v", len(list), err)
		}
	})
}

// BenchmarkRevoked measures the cost for a logon, with ten thousand revocations.
func BenchmarkRevoked(b *testing.B) {
	store := &registrytest.Memory{}
	r := registry.New(registry.Config{Store: store})
	for i := range 10000 {
		at := time.Now().UTC().Format(time.RFC3339)
		if _, err := store.Create(b.Context(), fmt.Sprintf("revocation/credential/%d", i), fmt.Appendf(nil, `{"version":1,"credential_id":"%d","revoked_at":%q}`, i, at)); err != nil {
			b.Fatal(err)
		}
	}
	go r.Run(b.Context())
	if err := r.Wait(b.Context()); err != nil {
		b.Fatal(err)
	}
	c := registry.Credential{ID: "01JG3F5D4TEXAMPLE000000000", Principal: session, Cluster: "east", DBUser: "alice", IssuedAt: time.Now()}
	b.ReportAllocs()
	for b.Loop() {
		if revoked, err := r.Revoked(c); revoked || err != nil {
			b.Fatal(revoked, err)
		}
	}
}
