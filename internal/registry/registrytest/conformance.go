// Package registrytest helps to test registries. Conformance checks that a registry.Store
// keeps its promises, and Memory is a store that can fail before or after a write.
package registrytest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/daypass/daypass/internal/registry"
)

// Conformance tests that a store keeps the promises of registry.Store. open returns an empty
// store. reopen returns the same store as another process, or a restarted one, would see it;
// nil if that is impossible.
func Conformance(t *testing.T, open func(t *testing.T) registry.Store, reopen func(t *testing.T, s registry.Store) registry.Store) {
	ctx := context.Background()
	must := func(t *testing.T) func(registry.Record, error) registry.Record {
		return func(r registry.Record, err error) registry.Record {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
			return r
		}
	}

	t.Run("compare and swap", func(t *testing.T) {
		s := open(t)
		if _, err := s.Get(ctx, "a"); !errors.Is(err, registry.ErrNotFound) {
			t.Errorf("Get of nothing = %v, want ErrNotFound", err)
		}
		first := must(t)(s.Create(ctx, "a", []byte("1")))
		if first.Key != "a" || string(first.Value) != "1" || first.Revision == 0 {
			t.Errorf("Create() = %+v", first)
		}
		if _, err := s.Create(ctx, "a", []byte("2")); !errors.Is(err, registry.ErrConflict) {
			t.Errorf("Create of what is there = %v, want ErrConflict", err)
		}
		if got := must(t)(s.Get(ctx, "a")); string(got.Value) != "1" || got.Revision != first.Revision {
			t.Errorf("Get() = %+v, want %+v", got, first)
		}
		second := must(t)(s.Replace(ctx, first, []byte("2")))
		if second.Revision <= first.Revision || string(second.Value) != "2" {
			t.Errorf("Replace() = %+v after %+v", second, first)
		}
		for name, err := range map[string]error{
			"Replace of an old revision": errOf(s.Replace(ctx, first, []byte("3"))),
			"Delete of an old revision":  s.Delete(ctx, first),
			"Replace of nothing":         errOf(s.Replace(ctx, registry.Record{Key: "b", Revision: 1}, nil)),
			"Delete of nothing":          s.Delete(ctx, registry.Record{Key: "b", Revision: 1}),
		} {
			if !errors.Is(err, registry.ErrConflict) {
				t.Errorf("%s = %v, want ErrConflict", name, err)
			}
		}
		if got := must(t)(s.Get(ctx, "a")); string(got.Value) != "2" {
			t.Errorf("a conflict has changed the record to %+v", got)
		}
		if err := s.Delete(ctx, second); err != nil {
			t.Fatal(err)
		}
		again := must(t)(s.Create(ctx, "a", []byte("4")))
		if again.Revision <= second.Revision {
			t.Errorf("made again with revision %d, after %d", again.Revision, second.Revision)
		}
		if err := s.Delete(ctx, second); !errors.Is(err, registry.ErrConflict) {
			t.Errorf("Delete of a record that was made again = %v, want ErrConflict", err)
		}
	})

	t.Run("values are copies", func(t *testing.T) {
		s := open(t)
		value := []byte("abc")
		must(t)(s.Create(ctx, "a", value))
		value[0] = 'x'
		if got := must(t)(s.Get(ctx, "a")); string(got.Value) != "abc" {
			t.Errorf("Get() = %q, want abc", got.Value)
		}
		big := bytes.Repeat([]byte{0, 255}, 32<<10)
		must(t)(s.Create(ctx, "big", big))
		if got := must(t)(s.Get(ctx, "big")); !bytes.Equal(got.Value, big) {
			t.Error("64 KiB do not come back")
		}
	})

	t.Run("list", func(t *testing.T) {
		s := open(t)
		for _, key := range []string{"p/c", "p/a", "q/a", "p", "p/b/a"} {
			must(t)(s.Create(ctx, key, []byte(key)))
		}
		list, err := s.List(ctx, "p/")
		if got := keys(list); err != nil || got != "[p/a p/b/a p/c]" {
			t.Errorf("List(p/) = %s, %v", got, err)
		}
		if list, err = s.List(ctx, "none/"); len(list) != 0 || err != nil {
			t.Errorf("List(none/) = %v, %v", list, err)
		}
	})

	t.Run("one of many wins", func(t *testing.T) {
		s := open(t)
		base := must(t)(s.Create(ctx, "a", nil))
		var won atomic.Int32
		var all sync.WaitGroup
		for i := range 16 {
			all.Go(func() {
				_, err := s.Replace(ctx, base, []byte{byte(i)})
				switch {
				case err == nil:
					won.Add(1)
				case !errors.Is(err, registry.ErrConflict):
					t.Error(err)
				}
			})
		}
		all.Wait()
		if won.Load() != 1 {
			t.Errorf("%d of 16 have replaced one revision, want 1", won.Load())
		}
	})

	t.Run("context", func(t *testing.T) {
		s := open(t)
		over, cancel := context.WithCancel(ctx)
		cancel()
		if _, err := s.Create(over, "a", nil); !errors.Is(err, context.Canceled) {
			t.Errorf("Create after the end = %v, want Canceled", err)
		}
		if _, err := s.Get(ctx, "a"); !errors.Is(err, registry.ErrNotFound) {
			t.Errorf("Get() = %v, want ErrNotFound", err)
		}
	})

	t.Run("watch", func(t *testing.T) {
		s := open(t)
		old := must(t)(s.Create(ctx, "p/a", []byte("1")))
		must(t)(s.Create(ctx, "q/a", nil))
		watched, stop := context.WithCancel(ctx)
		type sight struct {
			records []registry.Record
			changed bool
		}
		sights := make(chan sight, 64)
		done := make(chan error, 1)
		go func() {
			done <- s.Watch(watched, "p/", func(records []registry.Record, changed bool, _ time.Time) { sights <- sight{records, changed} })
		}()
		next := func(what string, want string) {
			t.Helper()
			limit := time.After(5 * time.Second)
			for {
				select {
				case got := <-sights:
					if got.changed && fmt.Sprint(pairs(got.records)) == want {
						return
					}
				case err := <-done:
					t.Fatalf("%s: Watch() = %v", what, err)
				case <-limit:
					t.Fatalf("%s: not seen: %s", what, want)
				}
			}
		}
		if first := <-sights; !first.changed || keys(first.records) != "[p/a]" {
			t.Errorf("first sight = %+v", first)
		}
		for beats := 0; beats < 2; { // while nothing changes
			select {
			case got := <-sights:
				if !got.changed {
					beats++
				}
			case <-time.After(5 * registry.Beat):
				t.Fatal("Watch gives no sign of life")
			}
		}
		must(t)(s.Create(ctx, "p/b", []byte("2")))
		next("create", "[p/a=1 p/b=2]")
		old = must(t)(s.Replace(ctx, old, []byte("3")))
		next("replace", "[p/a=3 p/b=2]")
		if err := s.Delete(ctx, old); err != nil {
			t.Fatal(err)
		}
		next("delete", "[p/b=2]")
		stop()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Watch() = %v, want Canceled", err)
		}
	})

	if reopen == nil {
		return
	}
	t.Run("persists", func(t *testing.T) {
		s := open(t)
		a := must(t)(s.Create(ctx, "a", []byte("1")))
		b := must(t)(s.Create(ctx, "b", []byte("2")))
		if err := s.Delete(ctx, b); err != nil {
			t.Fatal(err)
		}
		s = reopen(t, s)
		list, err := s.List(ctx, "")
		if err != nil || len(list) != 1 || string(list[0].Value) != "1" || list[0].Revision != a.Revision {
			t.Errorf("List() = %+v, %v", list, err)
		}
		if again := must(t)(s.Create(ctx, "b", nil)); again.Revision <= b.Revision {
			t.Errorf("revision %d after a restart, %d before", again.Revision, b.Revision)
		}
	})
}

func errOf(_ registry.Record, err error) error { return err }

func keys(list []registry.Record) string {
	names := []string{}
	for _, r := range list {
		names = append(names, r.Key)
	}
	return fmt.Sprint(names)
}

func pairs(list []registry.Record) []string {
	texts := []string{}
	for _, r := range list {
		texts = append(texts, r.Key+"="+string(r.Value))
	}
	return texts
}
