package etcdstore_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/daypass/daypass/internal/registry"
	"github.com/daypass/daypass/internal/registry/etcdstore"
	"github.com/daypass/daypass/test/etcdtest"
	"github.com/daypass/daypass/test/pgtest"
)

// TestAnnounce: a record exists as long as its writer does, is updated, and comes back after an
// outage.
func TestAnnounce(t *testing.T) {
	etcd := etcdtest.Start(t)
	reader, err := etcdstore.Open(etcdstore.Config{Endpoints: []string{etcd.URL}, Prefix: "daypass/"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { reader.Close() })
	there := func(key string) bool {
		_, err := reader.Get(t.Context(), key)
		if err != nil && !errors.Is(err, registry.ErrNotFound) {
			t.Fatal(err)
		}
		return err == nil
	}
	var failed atomic.Int32
	announce := func(key string) (writer *etcdstore.Store, again chan struct{}, stop func()) {
		writer, err := etcdstore.Open(etcdstore.Config{Endpoints: []string{etcd.URL}, Prefix: "daypass/"})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done, again := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(done)
			writer.Announce(ctx, key, 4*time.Second, func() []byte { return []byte(time.Now().String()) }, again, func(err error) {
				if err != nil {
					failed.Add(1)
				}
			})
		}()
		t.Cleanup(func() { cancel(); <-done; writer.Close() })
		return writer, again, func() { cancel(); <-done }
	}
	_, again, leave := announce("fleet/leaves")
	crashed, _, _ := announce("fleet/crashes")
	pgtest.Eventually(t, "both to be announced", func() bool { return there("fleet/leaves") && there("fleet/crashes") })
	first, err := reader.Get(t.Context(), "fleet/leaves")
	if err != nil {
		t.Fatal(err)
	}
	again <- struct{}{}
	again <- struct{}{} // the first signal has been received
	if next, err := reader.Get(t.Context(), "fleet/leaves"); err != nil || next.Revision == first.Revision {
		t.Errorf("asked to write again: %+v, %v", next, err)
	}
	leave()
	if there("fleet/leaves") {
		t.Error("a server that has left is still announced")
	}
	crashed.Close()
	pgtest.Eventually(t, "the crashed one's lease to end", func() bool { return !there("fleet/crashes") })

	announce("fleet/stays")
	pgtest.Eventually(t, "it to be announced", func() bool { return there("fleet/stays") })
	failed.Store(0)
	etcd.Stop()
	pgtest.Eventually(t, "the outage to be told", func() bool { return failed.Load() > 0 })
	etcd.Start()
	before, _ := reader.Get(t.Context(), "fleet/stays")
	pgtest.Eventually(t, "it to be announced again", func() bool {
		now, err := reader.Get(t.Context(), "fleet/stays")
		return err == nil && now.Revision > before.Revision
	})
}
