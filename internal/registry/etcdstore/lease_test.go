package etcdstore_test

import (
	"context"
	"testing"
	"time"

	"github.com/daypass/daypass/internal/registry"
	"github.com/daypass/daypass/internal/registry/etcdstore"
	"github.com/daypass/daypass/test/etcdtest"
	"github.com/daypass/daypass/test/pgtest"
)

// hold returns a lease that is kept until stop is called.
func hold(t *testing.T, etcd *etcdtest.Server) (lease *etcdstore.Lease, stop func()) {
	t.Helper()
	store, err := etcdstore.Open(etcdstore.Config{Endpoints: []string{etcd.URL}, Prefix: "daypass/"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	lease = store.Lease(5 * time.Second)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); lease.Hold(ctx) }()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	pgtest.Eventually(t, "a lease", func() bool { _, ok := lease.Held(); return ok })
	return lease, stop
}

// TestLease: a record is written only if nothing under its prefix has changed, and vanishes with its
// lease. Another cluster of etcd, or one that was restored, does not pass for an unchanged one.
func TestLease(t *testing.T) {
	t.Parallel()
	etcd := etcdtest.Start(t)
	a, stop := hold(t, etcd)
	b, _ := hold(t, etcd)
	swap := func(by *etcdstore.Lease, own, value string, since registry.Mark) registry.Sight {
		t.Helper()
		var bytes []byte
		if value != "" {
			bytes = []byte(value)
		}
		seen, err := by.Swap(t.Context(), "p/", "p/"+own, bytes, since)
		if err != nil {
			t.Fatalf("Swap(%s, %q) = %v", own, value, err)
		}
		return seen
	}
	first := swap(a, "a", "1", registry.Mark{})
	if !first.Written {
		t.Fatalf("the first Swap = %+v", first)
	}
	missed := swap(b, "b", "1", registry.Mark{})
	if missed.Written || len(missed.Records) != 1 || missed.Records[0].Key != "p/a" || string(missed.Records[0].Value) != "1" {
		t.Fatalf("Swap of someone who has not looked = %+v", missed)
	}
	second := swap(b, "b", "2", missed.At)
	if !second.Written {
		t.Fatalf("Swap of someone who has looked = %+v", second)
	}
	if late := swap(a, "a", "3", first.At); late.Written || len(late.Records) != 2 {
		t.Errorf("Swap although another record has changed = %+v", late)
	}
	if gone := swap(b, "b", "", second.At); !gone.Written {
		t.Errorf("Swap that deletes = %+v", gone)
	}
	stop()
	if _, ok := a.Held(); ok {
		t.Error("a lease that has ended is held")
	}
	if seen, err := b.Look(t.Context(), "p/"); err != nil || len(seen.Records) != 0 {
		t.Errorf("after the end of a lease Look = %+v, %v", seen, err)
	}
	if _, err := a.Swap(timeout(t, time.Second), "p/", "p/a", []byte("1"), registry.Mark{}); err == nil {
		t.Error("something is written without a lease")
	}

	before := swap(b, "b", "4", second.At)
	generation, _ := b.Held()
	etcd.Stop()
	etcd.Forget()
	etcd.Start()
	pgtest.Eventually(t, "another lease", func() bool { now, ok := b.Held(); return ok && now > generation })
	if seen := swap(b, "b", "5", before.At); seen.Written {
		t.Errorf("Swap in another cluster = %+v", seen)
	}
	seen, err := b.Look(t.Context(), "p/")
	if err != nil {
		t.Fatal(err)
	}
	if again := swap(b, "b", "6", seen.At); !again.Written {
		t.Errorf("Swap of someone who has looked at the other cluster = %+v", again)
	}
}

// TestLeaseInABackup: a backup contains the lease and its records. After a restore the lease's owner
// notices that records which it wrote after the backup may be missing, and gets another lease.
func TestLeaseInABackup(t *testing.T) {
	t.Parallel()
	etcd := etcdtest.Start(t)
	a, _ := hold(t, etcd)
	store := a.Store()
	write := func(value string) {
		t.Helper()
		seen, err := a.Look(t.Context(), "p/")
		if err == nil {
			seen, err = a.Swap(t.Context(), "p/", "p/a", []byte(value), seen.At)
		}
		if err != nil || !seen.Written {
			t.Fatalf("Swap(%s) = %+v, %v", value, seen, err)
		}
	}
	write("1")
	etcd.Stop()
	restore := etcd.Backup()
	etcd.Start()
	pgtest.Eventually(t, "the lease", func() bool { _, ok := a.Held(); return ok })
	for range 20 {
		write("2")
	}
	// A real server reads the revocations all the time.
	_, _ = store.List(t.Context(), "")
	before, _ := a.Held()
	etcd.Stop()
	restore()
	etcd.Start()
	pgtest.Eventually(t, "an answer", func() bool { _, err := store.List(t.Context(), ""); return err == nil })
	if now, ok := a.Held(); ok && now == before {
		t.Error("after a restore the records of before are said to be there")
	}
	pgtest.Eventually(t, "another lease", func() bool { now, ok := a.Held(); return ok && now != before })
}

func timeout(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}
