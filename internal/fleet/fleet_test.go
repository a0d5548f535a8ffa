package fleet_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/daypass/daypass/internal/fleet"
	"github.com/daypass/daypass/internal/keyring"
	"github.com/daypass/daypass/internal/registry"
	"github.com/daypass/daypass/internal/registry/registrytest"
)

// store is a registry in memory with leases, as one server sees it.
type store struct {
	*registrytest.Memory
	frozen *atomic.Bool // the server is not running: no call returns
}

func (s *store) wait(ctx context.Context) {
	for s.frozen.Load() && ctx.Err() == nil {
		time.Sleep(50 * time.Millisecond)
	}
}

func (s *store) Announce(ctx context.Context, key string, lifetime time.Duration, value func() []byte, again <-chan struct{}, tell func(error)) {
	for ctx.Err() == nil {
		s.wait(ctx)
		old, err := s.Get(ctx, key)
		if errors.Is(err, registry.ErrNotFound) {
			_, err = s.Create(ctx, key, value())
		} else if err == nil {
			_, err = s.Replace(ctx, old, value())
		}
		tell(err)
		select {
		case <-ctx.Done():
		case <-again:
		case <-time.After(lifetime / 2): // rarely, because the tests run for hours of simulated time
		}
	}
	// Also remove what an interrupted call may have written.
	if last, err := s.Get(context.Background(), key); err == nil {
		_ = s.Delete(context.Background(), last)
	}
}

func (s *store) Watch(ctx context.Context, prefix string, see func([]registry.Record, bool, time.Time)) error {
	return s.Memory.Watch(ctx, prefix, func(records []registry.Record, changed bool, asOf time.Time) {
		s.wait(ctx)
		see(records, changed, asOf)
	})
}

// cuttable returns a switch that cuts all servers of a test off from memory.
func cuttable(memory *registrytest.Memory) (cut *atomic.Bool) {
	cut = new(atomic.Bool)
	memory.Fail = func(string, bool) error {
		if cut.Load() {
			return errors.New("cut off")
		}
		return nil
	}
	return cut
}

// member is one server of a test.
type member struct {
	*fleet.Fleet
	t      *testing.T
	name   string
	frozen atomic.Bool
	offset time.Duration // of its clock
	moved  atomic.Int64  // by how much the clock was set, nanoseconds
	leaves atomic.Bool   // it says that it is about to leave
	stop   func()

	mu       sync.Mutex
	problems []string
}

func (m *member) now() time.Time { return time.Now().Add(m.offset + time.Duration(m.moved.Load())) }

func start(t *testing.T, memory *registrytest.Memory, roots *keyring.Roots, name string, offset time.Duration) *member {
	t.Helper()
	m := &member{t: t, name: name, offset: offset}
	started := m.now()
	f, err := fleet.Open(t.Context(), fleet.Config{
		Store: &store{memory, &m.frozen}, Roots: roots, Now: m.now,
		Self: func() fleet.Self {
			return fleet.Self{ID: name, Release: "1", Started: started, Leaving: m.leaves.Load()}
		},
		Problem: func(about string, err error) {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.problems = append(m.problems, fmt.Sprint(about, ": ", err))
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	m.Fleet = f
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); f.Run(ctx) }()
	m.stop = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(m.stop)
	limited, over := context.WithTimeout(t.Context(), time.Minute)
	defer over()
	if err := f.WaitSigning(limited); err != nil {
		t.Fatal(name, ": ", err)
	}
	return m
}

// kill stops a server as a crash does: its key is not retired, and its lease runs out.
func (m *member) kill(memory *registrytest.Memory) { m.stop() }

// message is what a server signs.
type message struct {
	by     string
	id     string
	sig    []byte
	signed time.Time
}

func (m *member) sign() message {
	m.t.Helper()
	if !m.Current().MaySign(m.now()) {
		m.t.Fatalf("%s may not sign", m.name)
	}
	id, sig := m.Current().Sign(m.now(), []byte("x"))
	return message{m.name, fmt.Sprintf("%x", id), sig, m.now()}
}

func (m *member) checks(s message) error {
	var id []byte
	fmt.Sscanf(s.id, "%x", &id)
	return m.Current().Verifier().Verify(id, []byte("x"), s.sig, m.now())
}

// agree fails unless every member accepts what each member signs, and opens what each seals.
func agree(t *testing.T, when string, members ...*member) {
	t.Helper()
	for _, a := range members {
		signed, sealed := a.sign(), a.Current().Seal(a.now(), []byte("token"), nil)
		for _, b := range members {
			if err := b.checks(signed); err != nil {
				t.Errorf("%s: %s checks what %s signed a moment ago: %v", when, b.name, a.name, err)
			}
			if _, err := b.Current().Open(b.now(), sealed, nil); err != nil {
				t.Errorf("%s: %s opens what %s sealed: %v", when, b.name, a.name, err)
			}
			if a.Current().Derive("p") != b.Current().Derive("p") {
				t.Errorf("%s: %s and %s derive different passwords", when, a.name, b.name)
			}
		}
	}
}

func operator(memory *registrytest.Memory, roots *keyring.Roots) *fleet.Operator {
	return &fleet.Operator{Store: memory, Roots: roots, Now: time.Now}
}

func settle(t *testing.T, o *fleet.Operator) {
	t.Helper()
	for range 600 {
		late, _, err := o.Settled(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(late) == 0 {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatal("the rotation does not come to its end")
}

// TestThreeServers: three servers have keys of their own, which are rotated and revoked. A
// credential from one of them is valid at all of them at every moment.
func TestThreeServers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory, roots := &registrytest.Memory{}, keyring.NewRoots()
		// Clocks that are minutes apart.
		a, b, c := start(t, memory, roots, "a", 0), start(t, memory, roots, "b", 2*time.Minute), start(t, memory, roots, "c", -2*time.Minute)
		agree(t, "at the start", a, b, c)
		if x, y := a.sign(), b.sign(); x.id == y.id {
			t.Error("two servers sign with the same key")
		}
		before := []message{a.sign(), b.sign(), c.sign()}
		sealed := c.Current().Seal(c.now(), []byte("token"), nil)
		o := operator(memory, roots)
		if err := o.Rotate(t.Context(), fleet.Rotation{}); err != nil {
			t.Fatal(err)
		}
		for range 100 { // at every moment of the rotation
			time.Sleep(50 * time.Millisecond)
			agree(t, "in the rotation", a, b, c)
		}
		settle(t, o)
		for i, m := range []*member{a, b, c} {
			if m.sign().id == before[i].id {
				t.Errorf("%s signs with the key of before the rotation", m.name)
			}
		}
		for _, m := range []*member{a, b, c} {
			for _, s := range before {
				if err := m.checks(s); err != nil {
					t.Errorf("after the rotation %s checks what %s signed before: %v", m.name, s.by, err)
				}
			}
			if _, err := m.Current().Open(m.now(), sealed, nil); err != nil {
				t.Errorf("after the rotation %s opens what was sealed before: %v", m.name, err)
			}
		}
		time.Sleep(5 * time.Minute) // more than the slowest clock is behind
		fresh := c.Current().Seal(c.now(), []byte("token"), nil)
		if string(fresh[:8]) == string(sealed[:8]) {
			t.Error("tokens are still sealed with the key of before the rotation")
		}

		// Revoke one server's key: everything it signed is refused, and the server continues with
		// another key.
		bad, good := b.sign(), a.sign()
		if ids, err := o.Revoke(t.Context(), bad.id); err != nil || len(ids) != 1 {
			t.Fatalf("Revoke() = %v, %v", ids, err)
		}
		time.Sleep(time.Second)
		for _, m := range []*member{a, b, c} {
			if err := m.checks(bad); !errors.Is(err, keyring.ErrUnknownKey) {
				t.Errorf("%s checks what a revoked key signed: %v", m.name, err)
			}
			if err := m.checks(good); err != nil {
				t.Errorf("%s checks what another key signed: %v", m.name, err)
			}
		}
		time.Sleep(5 * time.Second)
		agree(t, "after a revocation", a, b, c)

		// Writing the revoked key's record again changes nothing, and neither does deleting the
		// revocation.
		records, _ := memory.List(t.Context(), "fleet/key/revoked/")
		if len(records) != 1 {
			t.Fatalf("%d records of revocations", len(records))
		}
		if err := memory.Delete(t.Context(), records[0]); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if err := a.checks(bad); !errors.Is(err, keyring.ErrUnknownKey) {
			t.Errorf("a key whose revocation was deleted: %v", err)
		}
		if records, _ := memory.List(t.Context(), "fleet/key/revoked/"); len(records) != 1 {
			t.Error("the revocation is not put back")
		}

		// Revoke everything.
		all := []message{a.sign(), b.sign(), c.sign()}
		if err := o.Rotate(t.Context(), fleet.Rotation{Discard: true, Upstream: true}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		for _, m := range []*member{a, b, c} {
			for _, s := range all {
				if err := m.checks(s); err == nil {
					t.Errorf("after keys were discarded %s checks what %s signed", m.name, s.by)
				}
			}
			if _, err := m.Current().Open(m.now(), fresh, nil); err == nil {
				t.Errorf("after keys were discarded %s opens an earlier token", m.name)
			}
		}
		settle(t, o)
		agree(t, "after keys were discarded", a, b, c)
	})
}

// TestPhases: a key does not sign before every live server has seen it. A frozen server delays
// that until its lease has run out, and catches up when it wakes.
func TestPhases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory, roots := &registrytest.Memory{}, keyring.NewRoots()
		a, b := start(t, memory, roots, "a", 0), start(t, memory, roots, "b", 0)
		o, old := operator(memory, roots), a.sign().id
		b.frozen.Store(true)
		time.Sleep(time.Second)
		if err := o.Rotate(t.Context(), fleet.Rotation{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(8 * time.Second)
		if a.sign().id != old {
			t.Error("a key signs that a live server has not seen")
		}
		if late, servers, err := o.Settled(t.Context()); err != nil || servers != 2 || !slices.Contains(late, "b") {
			t.Errorf("Settled() = %v of %d, %v, want b to be late", late, servers, err)
		}
		time.Sleep(12 * time.Second)
		if a.sign().id == old {
			t.Error("a frozen server holds up the rotation for longer than its announcement counts")
		}
		signed := a.sign()
		b.frozen.Store(false)
		b.Await()
		if err := b.checks(signed); err != nil {
			t.Errorf("the server that woke checks what was signed meanwhile: %v", err)
		}
		settle(t, o)
		agree(t, "awake again", a, b)
	})
}

// TestForgotten: a server that left is forgotten when everything that it signed has expired, and a
// killed server when everything that it may have signed has expired. Until then their credentials
// work.
func TestForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory, roots := &registrytest.Memory{}, keyring.NewRoots()
		a, left, killed := start(t, memory, roots, "a", 0), start(t, memory, roots, "left", 0), start(t, memory, roots, "killed", 0)
		fromLeft, fromKilled := left.sign(), killed.sign()
		left.stop()
		left.Leave(t.Context())
		killed.kill(memory)
		there := func(id string) bool {
			_, err := memory.Get(t.Context(), "fleet/key/signer/"+id)
			return err == nil
		}
		time.Sleep(time.Hour)
		for _, s := range []message{fromLeft, fromKilled} {
			if err := a.checks(s); err != nil {
				t.Errorf("after an hour what %s signed: %v", s.by, err)
			}
		}
		time.Sleep(20 * time.Minute)
		if there(fromLeft.id) || !there(fromKilled.id) {
			t.Errorf("after 80 min: the record of the server that left is there: %t, want false; of the killed one %t, want true", there(fromLeft.id), there(fromKilled.id))
		}
		if err := a.checks(fromLeft); err == nil {
			t.Error("what left signed is good after 80 min")
		}
		time.Sleep(7 * time.Hour)
		if there(fromKilled.id) {
			t.Error("the record of the killed server is still there after 8 h 20 min")
		}
		agree(t, "eight hours later", a)
		records, _ := memory.List(t.Context(), "fleet/")
		if len(records) != 3 { // the shared one, a's key, a
			t.Errorf("%d records are left", len(records))
		}
	})
}

// TestDamage tries everything that is possible with write access to the registry or by restoring a
// backup.
func TestDamage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory, roots := &registrytest.Memory{}, keyring.NewRoots()
		a, b := start(t, memory, roots, "a", 0), start(t, memory, roots, "b", 0)
		ctx := t.Context()
		snapshot, _ := memory.List(ctx, "fleet/key/")
		c := start(t, memory, roots, "c", 0)
		fromC := c.sign()
		c.stop()
		c.Leave(ctx)
		o := operator(memory, roots)
		if err := o.Rotate(ctx, fleet.Rotation{}); err != nil {
			t.Fatal(err)
		}
		settle(t, o)
		good := []message{a.sign(), b.sign(), fromC}
		sealed := a.Current().Seal(a.now(), []byte("token"), nil)

		// Put the registry back to an earlier state, as a restore from a backup does.
		list, _ := memory.List(ctx, "")
		for _, record := range list {
			if err := memory.Delete(ctx, record); err != nil {
				t.Fatal(err)
			}
		}
		for _, record := range snapshot {
			if _, err := memory.Create(ctx, record.Key, record.Value); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(5 * time.Second)
		for _, m := range []*member{a, b} {
			for _, s := range good {
				if err := m.checks(s); err != nil {
					t.Errorf("after a restore %s checks what %s signed: %v", m.name, s.by, err)
				}
			}
		}
		d := start(t, memory, roots, "d", 0) // d knows only the current records
		for _, s := range good {
			if err := d.checks(s); err != nil {
				t.Errorf("after a restore a new server checks what %s signed: %v", s.by, err)
			}
		}
		if _, err := d.Current().Open(d.now(), sealed, nil); err != nil {
			t.Errorf("after a restore a new server opens a token of before: %v", err)
		}
		agree(t, "after a restore", a, b, d)

		// Someone without the root key tries to add a signer, in every possible way.
		other := keyring.NewRoots()
		stranger := start(t, &registrytest.Memory{}, other, "stranger", 0)
		theirs := stranger.sign()
		own, err := memory.Get(ctx, "fleet/key/signer/"+a.sign().id)
		if err != nil {
			t.Fatal(err)
		}
		foreign := fleet.CertifyForTest(other, theirs.id, "a")
		for name, value := range map[string][]byte{
			"certified by another root key": foreign,
			"another key's certificate":     own.Value,
			"no signature":                  []byte(strings.Replace(string(foreign), `"signature":"`, `"signature":"AA`, 1)),
			"not JSON":                      []byte("{"),
			"empty":                         nil,
			"a later version":               []byte(`{"version":2,"statement":"{}","signature":""}`),
		} {
			record, err := memory.Create(ctx, "fleet/key/signer/"+theirs.id, value)
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			for _, m := range []*member{a, b} {
				if err := m.checks(theirs); !errors.Is(err, keyring.ErrUnknownKey) {
					t.Errorf("%s: a stranger's signature: %v", name, err)
				}
			}
			agree(t, name, a, b, d)
			if err := memory.Delete(ctx, record); err != nil {
				t.Fatal(err)
			}
		}
		// Damaged shared secrets are repaired.
		for name, value := range map[string][]byte{"nonsense": []byte("x"), "an older copy": snapshot[0].Value} {
			record, err := memory.Get(ctx, "fleet/key/shared")
			if err == nil {
				_, err = memory.Replace(ctx, record, value)
			}
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * time.Second)
			agree(t, name, a, b, d)
			e := start(t, memory, roots, "e "+name, 0)
			agree(t, name+", a new server", a, b, d, e)
			e.stop()
		}
		if a.problems == nil {
			t.Error("nothing of it is told")
		}
	})
}

// TestRootKeys: the root key can be replaced server by server, and a server with an unknown root
// key does not start.
func TestRootKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := &registrytest.Memory{}
		parse := func(lines ...string) *keyring.Roots {
			roots, err := keyring.ParseRoots([]byte(strings.Join(lines, "\n")))
			if err != nil {
				t.Fatal(err)
			}
			return roots
		}
		const first, second = "5mrUHyeJx4KGsXXGbqZqCLpEVkGePlmkkkIAXfHlYmQ=", "q4d61qyQyxyvhhAIz9wUURnLlaVnVRcGgCYHxnIfm0o="
		a, b := start(t, memory, parse(first), "a", 0), start(t, memory, parse(first), "b", 0)
		signed := a.sign()
		_, err := fleet.Open(t.Context(), fleet.Config{Store: &store{memory, new(atomic.Bool)}, Roots: parse(second), Now: time.Now, Self: func() fleet.Self { return fleet.Self{ID: "x"} }})
		if !errors.Is(err, keyring.ErrUnknownRoot) || !strings.Contains(err.Error(), "another root key") {
			t.Fatalf("with another root key Open() = %v", err)
		}
		// A server with both root keys does not sign until the others trust its first one.
		hasty, err := fleet.Open(t.Context(), fleet.Config{Store: &store{memory, new(atomic.Bool)}, Roots: parse(second, first), Now: time.Now,
			Self: func() fleet.Self { return fleet.Self{ID: "hasty"} }})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
		done := make(chan struct{})
		go func() { defer close(done); hasty.Run(ctx) }()
		if err := hasty.WaitSigning(ctx); err == nil || !strings.Contains(err.Error(), "unknown to a, b") {
			t.Errorf("a server whose first root key the others do not have: %v", err)
		}
		cancel()
		<-done
		agree(t, "without the hasty one", a, b)
		again := func(m *member, roots *keyring.Roots) *member {
			m.stop()
			m.Leave(t.Context())
			return start(t, memory, roots, m.name, 0)
		}
		for _, lines := range [][]string{{first, second}, {second, first}} {
			a = again(a, parse(lines...))
			agree(t, strings.Join(lines, " before "), a, b)
			b = again(b, parse(lines...))
			agree(t, strings.Join(lines, " before "), a, b)
		}
		if err := b.checks(signed); err != nil {
			t.Errorf("what was signed before: %v", err)
		}
		time.Sleep(2 * time.Hour) // no record that is still needed depends on the first root key
		a = again(a, parse(second))
		agree(t, "the second root key alone", a, b)
		b = again(b, parse(second))
		agree(t, "the second root key alone", a, b)
	})
}

// TestMove: until the first rotation, servers with a keyring file and servers that share keys
// accept each other's credentials.
func TestMove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory, roots := &registrytest.Memory{}, keyring.NewRoots()
		file := keyring.New(time.Now().Add(-time.Hour)).Rotate(time.Now(), time.Now())
		_, err := fleet.Open(t.Context(), fleet.Config{Store: &store{memory, new(atomic.Bool)}, Roots: roots, Now: time.Now,
			Self: func() fleet.Self { return fleet.Self{ID: "x"} }, Legacy: "data/keyring.json"})
		if err == nil || !strings.Contains(err.Error(), "daypass keys move") {
			t.Fatalf("with a keyring file that was not moved Open() = %v", err)
		}
		o := operator(memory, roots)
		if err := o.Move(t.Context(), file); err != nil {
			t.Fatal(err)
		}
		if err := o.Move(t.Context(), file); err == nil || !strings.Contains(err.Error(), "already") {
			t.Errorf("the second Move() = %v", err)
		}
		a, b := start(t, memory, roots, "a", 0), start(t, memory, roots, "b", 0)
		agree(t, "moved", a, b)
		id, sig := file.Sign(time.Now(), []byte("x"))
		fromFile := message{by: "the file", id: fmt.Sprintf("%x", id), sig: sig}
		if err := a.checks(fromFile); err != nil {
			t.Errorf("what a server with the file signs: %v", err)
		}
		signed := a.sign()
		if err := file.Verifier().Verify(id, []byte("x"), signed.sig, time.Now()); err != nil {
			t.Errorf("a server with the file checks what one without signs: %v", err)
		}
		if file.Derive("p") != a.Current().Derive("p") {
			t.Error("passwords of session roles change with the move")
		}
		time.Sleep(30 * time.Minute)
		agree(t, "moved, half an hour later", a, b)
		signed = a.sign()
		if err := o.Rotate(t.Context(), fleet.Rotation{}); err != nil {
			t.Fatal(err)
		}
		settle(t, o)
		agree(t, "rotated", a, b)
		if a.sign().id == signed.id || a.sign().id == b.sign().id {
			t.Error("after the rotation servers do not have keys of their own")
		}
		if err := b.checks(signed); err != nil {
			t.Errorf("what was signed before the rotation: %v", err)
		}
		time.Sleep(90 * time.Minute)
		if err := b.checks(signed); err == nil {
			t.Error("the key of the file checks 90 min after the rotation")
		}
	})
}

// TestServers: servers and operators see the same list of live servers, and the same differences
// between them.
func TestServers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory, roots := &registrytest.Memory{}, keyring.NewRoots()
		a, b := start(t, memory, roots, "a", 0), start(t, memory, roots, "b", 0)
		o := operator(memory, roots)
		lists := func() map[string][]fleet.Server {
			t.Helper()
			outside, err := o.Servers(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return map[string][]fleet.Server{"a": a.Servers(), "b": b.Servers(), "outside": outside}
		}
		for who, list := range lists() {
			if len(list) != 2 || list[0].ID != "a" || list[1].ID != "b" || list[0].Signing == "" || list[0].Behind || list[0].Release != "1" {
				t.Errorf("%s sees %+v", who, list)
			}
			if found := fleet.Differences(list); len(found) != 0 {
				t.Errorf("%s finds differences: %v", who, found)
			}
		}
		c := start(t, memory, roots, "c", 2*time.Minute)
		time.Sleep(15 * time.Second)
		for who, list := range lists() {
			found := fleet.Differences(list)
			if len(list) != 3 || len(found) != 1 || !strings.HasPrefix(found[fleet.Clocks], "c is 2m0s ahead of ") {
				t.Errorf("%s sees %d servers and %v", who, len(list), found)
			}
		}
		c.stop()
		b.frozen.Store(true)
		time.Sleep(20 * time.Second)
		if list := a.Peers(); len(list) != 3 || list[1].ID != "b" || !list[1].Silent || list[0].Silent {
			t.Errorf("Peers() = %+v, want a and, silent, b and c", list)
		}
		for who, list := range map[string][]fleet.Server{"a": a.Servers(), "outside": lists()["outside"]} {
			if len(list) != 1 {
				t.Errorf("%s sees %d servers, want the one that is awake", who, len(list))
			}
		}
	})
	for want, list := range map[string][]fleet.Server{
		"map[]": {{Self: fleet.Self{ID: "a", Config: "x"}}, {Self: fleet.Self{ID: "b"}}},
		"map[configuration:x on a, c; y on b]": {{Self: fleet.Self{ID: "a", Release: "1", Config: "x"}}, {Self: fleet.Self{ID: "b", Release: "1", Config: "y"}},
			{Self: fleet.Self{ID: "c", Release: "1", Config: "x"}}},
		"map[configuration:x on a; y on b, c (in clusters.session_limits, iam)]": {{Self: fleet.Self{ID: "a", Release: "1", Config: "x", ConfigParts: map[string]string{"iam": "1", "region": "2"}}},
			{Self: fleet.Self{ID: "b", Release: "1", Config: "y", ConfigParts: map[string]string{"iam": "3", "region": "2", "clusters.session_limits": "4"}}},
			{Self: fleet.Self{ID: "c", Release: "1", Config: "y", ConfigParts: map[string]string{"iam": "3", "region": "2", "clusters.session_limits": "4"}}},
			{Self: fleet.Self{ID: "d", Release: "1"}}},
		// Another release has other defaults, and so another hash of the same file.
		"map[release:1 on a; 2 on b]": {{Self: fleet.Self{ID: "a", Release: "1", Config: "x"}}, {Self: fleet.Self{ID: "b", Release: "2", Config: "y"}}},
		"map[configuration:x on a; z on c release:1 on a, c; 2 on b]": {{Self: fleet.Self{ID: "a", Release: "1", Config: "x"}},
			{Self: fleet.Self{ID: "b", Release: "2", Config: "y"}}, {Self: fleet.Self{ID: "c", Release: "1", Config: "z"}}},
		"map[release:1 on a; 2 on b root key:r on a; s on b]": {{Self: fleet.Self{ID: "a", Release: "1"}, Roots: []string{"r", "s"}},
			{Self: fleet.Self{ID: "b", Release: "2"}, Roots: []string{"s"}}},
		"map[clock:b is 9s ahead of a]": {{Self: fleet.Self{ID: "a"}, Offset: -3 * time.Second}, {Self: fleet.Self{ID: "b"}, Offset: 6 * time.Second}},
	} {
		if got := fmt.Sprint(fleet.Differences(list)); got != want {
			t.Errorf("Differences() = %s, want %s", got, want)
		}
	}
}

// TestCut: a server that cannot reach the registry signs until its certificate expires, and no
// longer. It still lists the servers that it knew, also right after the registry is back.
func TestCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory, roots := &registrytest.Memory{}, keyring.NewRoots()
		cut := cuttable(memory)
		a := start(t, memory, roots, "a", 0)
		start(t, memory, roots, "b", 0)
		time.Sleep(30 * time.Minute)
		cut.Store(true)
		time.Sleep(4 * time.Hour)
		if list := a.Servers(); len(list) != 2 {
			t.Errorf("cut off, a knows %d servers, want the 2 that were there", len(list))
		}
		if a.Err() == nil || !a.Current().MaySign(a.now()) {
			t.Errorf("cut off for 4 h: Err() = %v, may sign %t", a.Err(), a.Current().MaySign(a.now()))
		}
		time.Sleep(3 * time.Hour)
		if a.Current().MaySign(a.now()) {
			t.Error("a server signs after its certificate has run out")
		}
		cut.Store(false)
		for a.Err() != nil {
			time.Sleep(time.Millisecond)
		}
		if list := a.Servers(); len(list) != 2 {
			t.Errorf("back, a knows %d servers, want 2", len(list))
		}
		time.Sleep(5 * time.Second)
		agree(t, "back", a)
		if a.Err() != nil {
			t.Error(a.Err())
		}
	})
}
