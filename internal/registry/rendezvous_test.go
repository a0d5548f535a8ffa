package registry_test

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/daypass/daypass/internal/registry"
	"github.com/daypass/daypass/internal/registry/registrytest"
)

// TestRendezvous: concurrent changes at several servers are applied one after another and none is
// lost. Expired values are neither returned nor kept.
func TestRendezvous(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &registrytest.Memory{}
		here, there := ready(t, run(t, registry.Config{Store: store})), ready(t, run(t, registry.Config{Store: store}))
		until := time.Now().Add(10 * time.Minute)
		id := []byte("BCDFGHJK")
		read := func(r *registry.Registry) (got string) {
			if err := r.Rendezvous(t.Context(), id, until, func(v []byte) []byte { got = string(v); return nil }); err != nil {
				t.Error(err)
			}
			return got
		}
		if got := read(here); got != "" {
			t.Errorf("before: %q", got)
		}
		if list, _ := store.List(t.Context(), ""); len(list) != 0 {
			t.Errorf("reading has written %v", list)
		}
		var all sync.WaitGroup
		for i := range 8 {
			r := here
			if i%2 == 1 {
				r = there
			}
			all.Go(func() {
				for {
					if err := r.Rendezvous(t.Context(), id, until, func(v []byte) []byte { return append(append([]byte{}, v...), 'x') }); err == nil {
						return
					}
				}
			})
		}
		all.Wait()
		if got := read(there); got != strings.Repeat("x", 8) {
			t.Errorf("after 8 changes: %q", got)
		}
		if err := here.Rendezvous(t.Context(), id, until, func([]byte) []byte { return make([]byte, 33<<10) }); err == nil {
			t.Error("a value that is too long was stored")
		}
		time.Sleep(10 * time.Minute)
		if got := read(here); got != "" {
			t.Errorf("after its time: %q", got)
		}
		time.Sleep(10 * time.Minute)
		if err := here.UseOnce(t.Context(), []byte("code"), time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		if list, err := store.List(t.Context(), "meeting/"); len(list) != 0 || err != nil {
			t.Errorf("%d records are left, %v", len(list), err)
		}
	})
}

// TestUsed: an id is used on all servers once UseOnce has returned, and a store that fails is an
// error.
func TestUsed(t *testing.T) {
	store := &registrytest.Memory{}
	here, there := registry.New(registry.Config{Store: store}), registry.New(registry.Config{Store: store})
	if used, err := there.Used(t.Context(), []byte("x")); used || err != nil {
		t.Errorf("before: %t, %v", used, err)
	}
	if err := here.UseOnce(t.Context(), []byte("x"), time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if used, err := there.Used(t.Context(), []byte("x")); !used || err != nil {
		t.Errorf("after: %t, %v", used, err)
	}
}

// TestPersonRevoked: a person is affected by a revocation of their role session, in any IAM role,
// and by one of everything. They are not affected by a revocation of the IAM role itself, of another
// person, or of credentials issued before they signed in.
func TestPersonRevoked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := ready(t, run(t, registry.Config{Store: &registrytest.Memory{}}))
		since := time.Now()
		time.Sleep(time.Second)
		for _, row := range []struct {
			revoke registry.Revocation
			want   bool
		}{
			{registry.Revocation{Principal: "arn:aws:sts::123456789012:assumed-role/analyst/bana@example.com"}, false},
			{registry.Revocation{Principal: "arn:aws:iam::123456789012:user/ana@example.com"}, false},
			{registry.Revocation{Principal: "arn:aws:iam::123456789012:role/analyst"}, false},
			{registry.Revocation{Principal: "arn:aws:sts::123456789012:assumed-role/other/ana@example.com", IssuedBefore: since.Add(-time.Hour)}, false},
			{registry.Revocation{Principal: "arn:aws:sts::123456789012:assumed-role/analyst/ana@example.com"}, true},
		} {
			if _, err := r.Revoke(t.Context(), row.revoke); err != nil {
				t.Fatal(err)
			}
			if got, err := r.PersonRevoked("ana@example.com", since); got != row.want || err != nil {
				t.Errorf("after a revocation of %s: %t, %v, want %t", row.revoke.Principal, got, err, row.want)
			}
		}
		if got, err := r.PersonRevoked("eve@example.com", since); got || err != nil {
			t.Errorf("someone else: %t, %v", got, err)
		}
		if _, err := r.Revoke(t.Context(), registry.Revocation{All: true}); err != nil {
			t.Fatal(err)
		}
		if got, err := r.PersonRevoked("eve@example.com", since); !got || err != nil {
			t.Errorf("after a revocation of everything: %t, %v", got, err)
		}
	})
	r := registry.New(registry.Config{Store: &registrytest.Memory{Fail: func(string, bool) error { return errors.New("gone") }}})
	if _, err := r.PersonRevoked("ana@example.com", time.Now()); err == nil {
		t.Error("a registry that was not read has an answer")
	}
}
