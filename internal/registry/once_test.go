package registry_test

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/daypass/daypass/internal/registry"
	"github.com/daypass/daypass/internal/registry/registrytest"
)

// TestUseOnce: of many calls at several servers only one succeeds, and expired records are
// deleted.
func TestUseOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &registrytest.Memory{}
		here, there := ready(t, run(t, registry.Config{Store: store})), ready(t, run(t, registry.Config{Store: store}))
		until := time.Now().Add(10 * time.Minute)
		var taken atomic.Int64
		var all sync.WaitGroup
		for i := range 20 {
			r := here
			if i%2 == 1 {
				r = there
			}
			all.Go(func() {
				switch err := r.UseOnce(t.Context(), []byte("code"), until); {
				case err == nil:
					taken.Add(1)
				case !errors.Is(err, registry.ErrUsed):
					t.Error(err)
				}
			})
		}
		all.Wait()
		if n := taken.Load(); n != 1 {
			t.Errorf("%d calls have used it up, want 1", n)
		}
		time.Sleep(9 * time.Minute)
		if err := there.UseOnce(t.Context(), []byte("code"), until); !errors.Is(err, registry.ErrUsed) {
			t.Errorf("before its end: %v, want ErrUsed", err)
		}
		for i := range 100 {
			if err := here.UseOnce(t.Context(), fmt.Append(nil, i), time.Now().Add(10*time.Minute)); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(20 * time.Minute)
		if err := here.UseOnce(t.Context(), []byte("last"), time.Now().Add(10*time.Minute)); err != nil {
			t.Fatal(err)
		}
		if list, err := store.List(t.Context(), "used/"); len(list) != 1 || err != nil {
			t.Errorf("%d records are left, %v, want the last one", len(list), err)
		}
	})
}

// TestUseOnceFailsClosed: an id whose record may not have been written is not accepted.
func TestUseOnceFailsClosed(t *testing.T) {
	store := &registrytest.Memory{}
	r := registry.New(registry.Config{Store: store})
	for _, point := range []bool{false, true} {
		store.Fail = func(_ string, persisted bool) error {
			if persisted == point {
				return errors.New("the disk is gone")
			}
			return nil
		}
		if err := r.UseOnce(t.Context(), []byte("code"), time.Now().Add(time.Minute)); err == nil || errors.Is(err, registry.ErrUsed) {
			t.Errorf("when the store fails: %v, want an error", err)
		}
	}
}

// TestKeptForSignIns: a revocation that affects people who have signed in is kept for as long
// as their sign-ins can last.
func TestKeptForSignIns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &registrytest.Memory{}
		r := ready(t, run(t, registry.Config{Store: store}))
		signedIn := time.Now()
		time.Sleep(time.Second)
		if _, err := r.Revoke(t.Context(), registry.Revocation{Principal: session}); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Revoke(t.Context(), registry.Revocation{DBUser: "alice"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(12 * time.Hour)
		if revoked, err := r.Revoked(registry.Credential{Principal: session, IssuedAt: signedIn}); !revoked || err != nil {
			t.Errorf("after twelve hours: Revoked() = %v, %v", revoked, err)
		}
		if list, err := store.List(t.Context(), ""); len(list) != 1 || err != nil {
			t.Errorf("%d records are left, %v, want that of the principal", len(list), err)
		}
		time.Sleep(10 * time.Minute)
		if list, err := store.List(t.Context(), ""); len(list) != 0 || err != nil {
			t.Errorf("%d records are left in the end, %v", len(list), err)
		}
	})
}
