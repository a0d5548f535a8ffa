package fleet_test

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/daypass/daypass/internal/fleet"
	"github.com/daypass/daypass/internal/keyring"
	"github.com/daypass/daypass/internal/registry"
	"github.com/daypass/daypass/internal/registry/registrytest"
)

// put writes a record unconditionally, as anyone with write access to etcd can.
func put(t *testing.T, memory *registrytest.Memory, key, value string) {
	t.Helper()
	for {
		old, err := memory.Get(t.Context(), key)
		if err == nil || errors.Is(err, registry.ErrNotFound) {
			old.Key = key
			_, err = memory.Replace(t.Context(), old, []byte(value))
		}
		if err == nil {
			return
		}
		if !errors.Is(err, registry.ErrConflict) {
			t.Fatal(err)
		}
	}
}

// TestRevocationsAreKept: an attacker with write access to the registry can neither prevent nor undo
// the revocation of a key, even with the key itself.
func TestRevocationsAreKept(t *testing.T) {
	refused := func(t *testing.T, when string, s message, members ...*member) {
		t.Helper()
		for _, m := range members {
			if err := m.checks(s); !errors.Is(err, keyring.ErrUnknownKey) {
				t.Errorf("%s: %s checks what a revoked key signed: %v", when, m.name, err)
			}
		}
	}
	t.Run("nonsense in the place of the revocation", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			memory, roots := &registrytest.Memory{}, keyring.NewRoots()
			a, b := start(t, memory, roots, "a", 0), start(t, memory, roots, "b", 0)
			bad, o := b.sign(), operator(memory, roots)
			key := "fleet/key/revoked/" + bad.id
			put(t, memory, key, "x")
			for range 2 { // the second time, the key's certificate no longer exists
				if ids, err := o.Revoke(t.Context(), bad.id); err != nil || len(ids) != 1 {
					t.Fatalf("Revoke() = %v, %v", ids, err)
				}
				time.Sleep(time.Second)
				refused(t, "revoked", bad, a, b)
			}
			for _, value := range []string{"x", `{"version":2}`, string(fleet.CertifyForTest(keyring.NewRoots(), bad.id, "b"))} {
				put(t, memory, key, value)
				time.Sleep(time.Second)
				refused(t, value, bad, a, b)
				if record, err := memory.Get(t.Context(), key); err != nil || string(record.Value) == value {
					t.Errorf("%s: the revocation is not put back: %v", value, err)
				}
			}
		})
	})
	t.Run("an earlier certificate while it is revoked", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			memory, roots := &registrytest.Memory{}, keyring.NewRoots()
			b := start(t, memory, roots, "b", 0)
			key := "fleet/key/signer/" + b.sign().id
			earlier, err := memory.Get(t.Context(), key)
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(14 * time.Hour) // longer than the earlier certificate is valid
			a := start(t, memory, roots, "a", 0)
			bad, o := b.sign(), operator(memory, roots)
			later, err := memory.Get(t.Context(), key)
			if err != nil {
				t.Fatal(err)
			}
			put(t, memory, key, string(earlier.Value))
			if _, err := o.Revoke(t.Context(), bad.id); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			record, err := memory.Get(t.Context(), "fleet/key/revoked/"+bad.id)
			if err == nil {
				err = memory.Delete(t.Context(), record)
			}
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			put(t, memory, key, string(later.Value))
			time.Sleep(time.Second)
			refused(t, "deleted, and the certificate put back", bad, a, b)
		})
	})
}

// TestKeysAreKept: servers replace nonsense that someone has written over a certificate.
func TestKeysAreKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory, roots := &registrytest.Memory{}, keyring.NewRoots()
		a, b := start(t, memory, roots, "a", 0), start(t, memory, roots, "b", 0)
		gone := start(t, memory, roots, "gone", 0)
		signed := gone.sign()
		gone.kill(memory)
		for _, s := range []message{a.sign(), b.sign(), signed} {
			put(t, memory, "fleet/key/signer/"+s.id, "x")
		}
		time.Sleep(2 * time.Second)
		c := start(t, memory, roots, "c", 0)
		agree(t, "put back", a, b, c)
		if err := c.checks(signed); err != nil {
			t.Errorf("a new server checks what one signed that is gone: %v", err)
		}
	})
}

// TestClockIsPutRight: a server whose clock was hours ahead certifies its key again when the clock
// is right. The others believe it, and no server writes forever.
func TestClockIsPutRight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory, roots := &registrytest.Memory{}, keyring.NewRoots()
		var replaced atomic.Int64
		memory.Fail = func(method string, persisted bool) error {
			if method == "Replace" && persisted && replaced.Add(1) > 10_000 {
				time.Sleep(time.Minute) // otherwise the test does not end
			}
			return nil
		}
		a, b := start(t, memory, roots, "a", 0), start(t, memory, roots, "b", 0)
		b.moved.Store(int64(3 * time.Hour))
		time.Sleep(time.Minute)
		before := replaced.Load()
		b.moved.Store(0)
		time.Sleep(time.Minute)
		if wrote := replaced.Load() - before; wrote > 60 {
			t.Errorf("%d writes in a minute", wrote)
		}
		agree(t, "with the clock put right", a, b)
		signed := b.sign()
		b.stop()
		b.Leave(t.Context())
		time.Sleep(90 * time.Minute)
		if err := a.checks(signed); err == nil {
			t.Error("a key that was retired checks for hours")
		}
	})
}

// TestManyBadRecords: nonsense that is written again and again does not fill the log.
func TestManyBadRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory, roots := &registrytest.Memory{}, keyring.NewRoots()
		a := start(t, memory, roots, "a", 0)
		for i := range 300 {
			put(t, memory, fmt.Sprintf("fleet/key/signer/%d", i%150), "x")
			if i%150 == 149 {
				time.Sleep(time.Second)
				records, _ := memory.List(t.Context(), "fleet/key/signer/1")
				for _, record := range records {
					_ = memory.Delete(t.Context(), record)
				}
				time.Sleep(time.Second)
			}
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		if len(a.problems) == 0 || len(a.problems) > 150 {
			t.Errorf("%d lines of the log", len(a.problems))
		}
	})
}

// TestRestartedAgainAndAgain: the records of servers that never run for long are forgotten.
func TestRestartedAgainAndAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory, roots := &registrytest.Memory{}, keyring.NewRoots()
		most := 0
		for i := range 150 {
			a := start(t, memory, roots, fmt.Sprint("a", i), 0)
			a.kill(memory)
			records, _ := memory.List(t.Context(), "fleet/key/signer/")
			most = max(most, len(records))
			time.Sleep(time.Hour)
		}
		if most > 60 {
			t.Errorf("%d records of 150 servers", most)
		}
	})
}

// TestRotationOfAnEarlierState: someone writes an earlier record of the common secrets just before
// keys are rotated. The servers still agree with each other, and the operator gets an error if the
// rotation is lost.
func TestRotationOfAnEarlierState(t *testing.T) {
	for earlier, rotations := range map[string]int{"the one before": 0, "one of two rotations ago": 2} {
		t.Run(earlier, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				memory, roots := &registrytest.Memory{}, keyring.NewRoots()
				a, b := start(t, memory, roots, "a", 0), start(t, memory, roots, "b", 0)
				var records []string // earlier versions of the record
				o := operator(memory, roots)
				look := func() {
					record, err := memory.Get(t.Context(), "fleet/key/shared")
					if err != nil {
						t.Fatal(err)
					}
					records = append(records, string(record.Value)) // includes a session key that is not in use yet
				}
				if err := o.Rotate(t.Context(), fleet.Rotation{}); err != nil {
					t.Fatal(err)
				}
				look()
				settle(t, o)
				for range rotations {
					if err := o.Rotate(t.Context(), fleet.Rotation{}); err != nil {
						t.Fatal(err)
					}
					settle(t, o)
				}
				before := []message{a.sign(), b.sign()}
				put(t, memory, "fleet/key/shared", records[0])
				if err := o.Rotate(t.Context(), fleet.Rotation{Discard: true}); err != nil {
					t.Fatal(err)
				}
				lost := false
				for range 100 {
					late, _, err := o.Settled(t.Context())
					if lost = errors.Is(err, fleet.ErrLost); lost || err == nil && len(late) == 0 {
						break
					}
					time.Sleep(100 * time.Millisecond)
				}
				time.Sleep(5 * time.Second)
				c := start(t, memory, roots, "c", 0)
				agree(t, "afterwards", a, b, c)
				for _, s := range before {
					if err := a.checks(s); (err == nil) != lost {
						t.Errorf("the rotation was lost: %t; what was signed before: %v", lost, err)
					}
				}
			})
		})
	}
}

// TestCopiedAnnouncement: an announcement of a server that is gone does not count as a server, even
// if someone restores it again and again.
func TestCopiedAnnouncement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory, roots := &registrytest.Memory{}, keyring.NewRoots()
		a, gone := start(t, memory, roots, "a", 0), start(t, memory, roots, "gone", 0)
		time.Sleep(time.Minute)
		earlier, _ := memory.Get(t.Context(), "fleet/server/gone")
		time.Sleep(time.Minute)
		copied, err := memory.Get(t.Context(), "fleet/server/gone")
		if err != nil || string(copied.Value) == string(earlier.Value) {
			t.Fatal(err)
		}
		gone.stop()
		time.Sleep(time.Minute)
		put(t, memory, copied.Key, string(earlier.Value))
		time.Sleep(time.Second)
		if err := operator(memory, roots).Rotate(t.Context(), fleet.Rotation{}); err != nil {
			t.Fatal(err)
		}
		old := a.sign().id
		for range 30 { // alternate them, as a running server would write
			put(t, memory, copied.Key, string(earlier.Value))
			time.Sleep(time.Second)
			put(t, memory, copied.Key, string(copied.Value))
			time.Sleep(time.Second)
		}
		if a.sign().id == old {
			t.Error("a copy of an announcement holds up a rotation")
		}
		put(t, memory, copied.Key, string(copied.Value))
		time.Sleep(2 * time.Minute)
		if _, err := memory.Get(t.Context(), copied.Key); err == nil {
			t.Error("a copy of an announcement stays")
		}
	})
}

// TestClockIsPutBack: a server stays in the list when its clock is set back.
func TestClockIsPutBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory, roots := &registrytest.Memory{}, keyring.NewRoots()
		a, b := start(t, memory, roots, "a", 0), start(t, memory, roots, "b", 0)
		b.moved.Store(-int64(10 * time.Minute))
		time.Sleep(time.Minute)
		if list := a.Servers(); len(list) != 2 {
			t.Errorf("a sees %d servers", len(list))
		}
		list, err := operator(memory, roots).Servers(t.Context())
		if err != nil || len(list) != 2 || fleet.Differences(list)[fleet.Clocks] == "" {
			t.Errorf("Servers() = %+v, %v", list, err)
		}
	})
}

// TestOneRootKeyForTwoInstallations: records are not bound to an installation, as docs/threat-model.md
// says. With one root key, a record that is copied from one etcd to another is believed there.
func TestOneRootKeyForTwoInstallations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		roots, first, second := keyring.NewRoots(), &registrytest.Memory{}, &registrytest.Memory{}
		a, b := start(t, first, roots, "a", 0), start(t, second, roots, "b", 0)
		time.Sleep(5 * time.Second)
		knows := func() bool { return a.checks(b.sign()) == nil }
		if knows() {
			t.Error("a key of the other installation is known before its record is copied")
		}
		records, err := second.List(t.Context(), "fleet/key/signer/")
		if err != nil || len(records) != 1 {
			t.Fatalf("List() = %v, %v", records, err)
		}
		if _, err := first.Create(t.Context(), records[0].Key, records[0].Value); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		if !knows() {
			t.Error("a copied record is not believed: docs/threat-model.md and several-servers.md say that it is")
		}
	})
}
