package etcdstore_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/daypass/daypass/internal/keyring"
	"github.com/daypass/daypass/internal/registry"
	"github.com/daypass/daypass/internal/registry/etcdstore"
	"github.com/daypass/daypass/internal/registry/registrytest"
	"github.com/daypass/daypass/test/etcdtest"
)

const prefix = "daypass/"

func open(t testing.TB, config etcdstore.Config) *etcdstore.Store {
	t.Helper()
	s, err := tryOpen(t, config)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func tryOpen(t testing.TB, config etcdstore.Config) (*etcdstore.Store, error) {
	if config.Prefix == "" {
		config.Prefix = prefix
	}
	s, err := etcdstore.Open(config)
	if err == nil {
		t.Cleanup(func() {
			if err := s.Close(); err != nil {
				t.Errorf("Close() = %v", err)
			}
		})
	}
	return s, err
}

func at(servers ...*etcdtest.Server) etcdstore.Config {
	var config etcdstore.Config
	for _, s := range servers {
		config.Endpoints = append(config.Endpoints, s.URL)
	}
	return config
}

func create(t testing.TB, s registry.Store, key, value string) registry.Record {
	t.Helper()
	record, err := s.Create(context.Background(), key, []byte(value))
	if err != nil {
		t.Fatal(err)
	}
	return record
}

// watching is a running Watch.
type watching struct {
	t      testing.TB
	sights chan sight
	done   chan error
	run    func() error
	again  int // how often sees has started another Watch
}

type sight struct {
	records string // "a=1 b=2"
	changed bool
	at      time.Time
	asOf    time.Time
}

func watch(t testing.TB, s registry.Store) *watching {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	w := &watching{t: t, sights: make(chan sight, 1000), done: make(chan error, 1)}
	w.run = func() error {
		return s.Watch(ctx, "", func(records []registry.Record, changed bool, asOf time.Time) {
			var texts []string
			for _, r := range records {
				texts = append(texts, r.Key+"="+string(r.Value))
			}
			w.sights <- sight{strings.Join(texts, " "), changed, time.Now(), asOf}
		})
	}
	go func() { w.done <- w.run() }()
	t.Cleanup(stop)
	return w
}

// sees waits for a report that satisfies wanted. On a busy machine etcd may be silent for so long that
// the Watch gives up. Then sees starts another one, as Registry.Run does.
func (w *watching) sees(what string, wanted func(sight) bool) sight {
	w.t.Helper()
	limit := time.After(time.Minute)
	for {
		select {
		case got := <-w.sights:
			if wanted(got) {
				return got
			}
		case err := <-w.done:
			if !errors.Is(err, context.DeadlineExceeded) {
				w.t.Fatalf("%s: Watch() = %v", what, err)
			}
			w.t.Logf("%s: another Watch after %v", what, err)
			w.again++
			go func() { w.done <- w.run() }()
		case <-limit:
			w.t.Fatalf("%s: not seen", what)
		}
	}
}

func (w *watching) seesRecords(want string) sight {
	w.t.Helper()
	return w.sees(want, func(s sight) bool { return s.changed && s.records == want })
}

func beat(s sight) bool { return !s.changed }

// givesUp checks that the watch ends with an error, and confirms nothing before that, because
// etcd cannot confirm anything.
func (w *watching) givesUp(since time.Time, want string) {
	w.t.Helper()
	select {
	case err := <-w.done:
		if err == nil || !strings.HasPrefix(err.Error(), "etcd at 127.0.0.1:") || !strings.Contains(err.Error(), want) {
			w.t.Errorf("Watch() = %v, want %q", err, want)
		}
		w.t.Logf("after %v: %v", time.Since(since).Round(time.Millisecond), err)
	case <-time.After(time.Minute):
		w.t.Fatal("the watch goes on")
	}
	var late []string
	for {
		select {
		case s := <-w.sights:
			if after := s.at.Sub(since); after > registry.Beat/2 {
				late = append(late, fmt.Sprintf("changed: %v, after %v", s.changed, after))
			}
			continue
		default:
		}
		break
	}
	if len(late) > 1 { // one answer may have been under way
		w.t.Errorf("sights that no server gave: %q", late)
	}
}

// TestConformance uses one etcd, with a different prefix for each store.
func TestConformance(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t)
	prefixes := map[registry.Store]string{}
	store := func(t *testing.T, prefix string) registry.Store {
		config := at(server)
		config.Prefix = prefix
		s := open(t, config)
		prefixes[s] = prefix
		return s
	}
	registrytest.Conformance(t,
		func(t *testing.T) registry.Store { return store(t, fmt.Sprintf("test/%d/", len(prefixes))) },
		func(t *testing.T, s registry.Store) registry.Store {
			server.Stop()
			server.Start()
			return store(t, prefixes[s])
		})
}

func TestLongPrincipal(t *testing.T) {
	t.Parallel()
	registrytest.LongPrincipal(t, open(t, at(etcdtest.Start(t))))
}

// TestTwoStores: a change by one store reaches the other within a second, and is visible to
// the writer at once.
func TestTwoStores(t *testing.T) {
	server := etcdtest.Start(t)
	here, there := open(t, at(server)), open(t, at(server))
	watchHere, watchThere := watch(t, here), watch(t, there)
	watchHere.seesRecords("")
	watchThere.seesRecords("")
	fastest, fastestThere := time.Hour, time.Hour // of ten attempts, since a busy machine is slow now and then
	old := create(t, here, "a", "0")
	for i := 1; i < 10; i++ {
		began := time.Now()
		var err error
		if old, err = here.Replace(t.Context(), old, fmt.Append(nil, i)); err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprintf("a=%d", i)
		fastest = min(fastest, watchHere.seesRecords(want).at.Sub(began))
		fastestThere = min(fastestThere, watchThere.seesRecords(want).at.Sub(began))
	}
	if fastest > registry.Beat/2 {
		t.Errorf("a store that writes is told after %v, want it sooner than the next beat", fastest)
	}
	if fastestThere > time.Second {
		t.Errorf("the other one was told after %v, want a second at most", fastestThere)
	}
	t.Logf("own writes are told after %v, others' after %v", fastest, fastestThere)
}

// TestLeavesOthersAlone: keys outside the prefix are not read, and their changes are not
// reported.
func TestLeavesOthersAlone(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t)
	stranger := server.Client()
	put(t, stranger, "daypas", "x")
	put(t, stranger, "daypass0", "x")
	s := open(t, at(server))
	create(t, s, "a", "1")
	w := watch(t, s)
	w.seesRecords("a=1")
	for i := range 5 {
		put(t, stranger, "daypass0", fmt.Sprint(i))
		before := w.again
		if w.sees("a sight", func(sight) bool { return true }).changed && w.again == before {
			t.Error("a change of somebody else's key is told")
		}
	}
}

func put(t testing.TB, client *clientv3.Client, key, value string) {
	t.Helper()
	if _, err := client.Put(t.Context(), key, value); err != nil {
		t.Fatal(err)
	}
}

// TestStopped: while etcd is stopped, the watch confirms nothing and then ends, and every
// call fails in time. Afterwards all records are still there.
func TestStopped(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t)
	s := open(t, at(server))
	create(t, s, "a", "1")
	w := watch(t, s)
	w.seesRecords("a=1")
	w.sees("a beat", beat)
	since := time.Now()
	server.Stop()
	w.givesUp(since, "connection refused")
	began := time.Now()
	if _, err := s.Create(t.Context(), "b", nil); err == nil {
		t.Error("Create() = nil without a server")
	}
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("it took %v, want the few seconds that a call may take", took)
	}
	server.Start()
	heals(t, s, "a=1")
}

// heals starts a new watch, as Registry.Run does.
func heals(t testing.TB, s registry.Store, want string) {
	t.Helper()
	for began := time.Now(); ; time.Sleep(registry.Beat / 2) {
		list, err := s.List(t.Context(), "")
		if err == nil {
			w := watch(t, s)
			w.seesRecords(want)
			w.sees("a beat", beat)
			t.Logf("healed after %v", time.Since(began).Round(time.Millisecond))
			return
		}
		if time.Since(began) > time.Minute {
			t.Fatalf("List() = %v, %v", list, err)
		}
	}
}

// TestStalled: a connection on which nothing arrives any more confirms nothing.
func TestStalled(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t)
	link := etcdtest.NewLine(t, server.Host)
	s := open(t, etcdstore.Config{Endpoints: []string{link.URL}})
	create(t, s, "a", "1")
	w := watch(t, s)
	w.seesRecords("a=1")
	w.sees("a beat", beat)
	since := time.Now()
	link.Stall(true)
	w.givesUp(since, "no member has answered in time")
	link.Stall(false)
	heals(t, s, "a=1")
}

// TestOneOfThreeStalled: if one member stalls, the others answer in its place.
func TestOneOfThreeStalled(t *testing.T) {
	t.Parallel()
	servers := etcdtest.StartCluster(t, 3)
	link := etcdtest.NewLine(t, servers[0].Host)
	config := at(servers...)
	config.Endpoints[0] = link.URL
	s := open(t, config)
	create(t, s, "a", "1")
	w := watch(t, s)
	w.seesRecords("a=1")
	link.Stall(true)
	for range 10 {
		w.sees("a beat", beat)
	}
	put(t, servers[1].Client(), prefix+"b", etcdstore.Format("b", "2"))
	w.seesRecords("a=1 b=2")
}

// TestNoQuorum: a member that is cut off from the others does not know their latest changes, so
// its answers are not used.
func TestNoQuorum(t *testing.T) {
	t.Parallel()
	servers := etcdtest.StartCluster(t, 3)
	s := open(t, at(servers[0]))
	create(t, s, "a", "1")
	w := watch(t, s)
	w.seesRecords("a=1")
	w.sees("a beat", beat)
	servers[1].Stop()
	// One of three is missing, perhaps the leader.
	w.sees("a beat", beat)
	since := time.Now()
	servers[2].Stop()
	w.givesUp(since, "")
	servers[1].Start()
	heals(t, s, "a=1")
}

// TestRestored: a cluster whose revisions go back is recognised.
func TestRestored(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t)
	s := open(t, at(server))
	for i := range 5 {
		create(t, s, fmt.Sprint(i), "x")
	}
	server.Stop()
	server.Forget()
	server.Start()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	err := s.Watch(ctx, "", func([]registry.Record, bool, time.Time) { t.Error("the watch takes it for the same") })
	if err == nil || !strings.Contains(err.Error(), "gone back from revision 6 to 1") || !strings.Contains(err.Error(), "daypass revoke --all") {
		t.Errorf("Watch() = %v", err)
	}
	heals(t, s, "")
}

// TestCompacted: a list shows a single moment even if etcd compacts its history meanwhile,
// and a watch needs no history.
func TestCompacted(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t)
	s, stranger := open(t, at(server)), server.Client()
	const n = 220 // more than a page
	generation := func(g string) {
		t.Helper()
		var puts []clientv3.Op
		for i := range n {
			key := fmt.Sprintf("%03d", i)
			puts = append(puts, clientv3.OpPut(prefix+key, etcdstore.Format(key, g)))
		}
		answer, err := stranger.Txn(t.Context()).Then(puts...).Commit()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stranger.Compact(t.Context(), answer.Header.Revision); err != nil {
			t.Fatal(err)
		}
	}
	generation("0")
	w := watch(t, s)
	w.sees("all", func(s sight) bool { return strings.Count(s.records, "=0") == n })
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 50 {
			list, err := s.List(t.Context(), "")
			if err != nil || len(list) != n {
				t.Errorf("List() = %d records, %v, want %d", len(list), err, n)
				return
			}
			for _, r := range list {
				if string(r.Value) != string(list[0].Value) {
					t.Errorf("%s is of generation %s, and %s of %s", list[0].Key, list[0].Value, r.Key, r.Value)
				}
			}
		}
	}()
	for g := 1; ; g++ {
		generation(fmt.Sprint(g))
		select {
		case <-done:
			w.sees("the last generation", func(s sight) bool { return strings.Count(s.records, fmt.Sprintf("=%d", g)) == n })
			w.sees("a beat", beat)
			return
		default:
		}
	}
}

// TestStrangers: a record that another program wrote is an error that names the record. It is
// neither ignored nor a crash.
func TestStrangers(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t)
	s, stranger := open(t, at(server)), server.Client()
	good := etcdstore.Format("a", `{"version":1}`)
	for name, row := range map[string]struct{ value, want string }{
		"nothing":          {"", "record a is damaged, or another program wrote it: `etcdctl del daypass/a`"},
		"a word":           {"hello", "damaged"},
		"words":            {"hello to you all", "damaged"},
		"a version only":   {"1", "damaged"},
		"no value":         {"1 00000000", "damaged"},
		"version 2":        {"2" + good[1:], "record a has version 2, and this program knows 1: run the newer program that wrote it"},
		"version 01":       {"0" + good, "version 1"},
		"another key":      {etcdstore.Format("b", `{"version":1}`), "damaged"},
		"a bit":            {strings.Replace(good, "version", "versioo", 1), "damaged"},
		"cut":              {good[:len(good)-1], "damaged"},
		"checksum in caps": {strings.ToUpper(good[:10]) + good[10:], "damaged"},
	} {
		t.Run(name, func(t *testing.T) {
			put(t, stranger, prefix+"a", row.value)
			_, err := s.Get(t.Context(), "a")
			_, errList := s.List(t.Context(), "")
			errWatch := s.Watch(t.Context(), "", func([]registry.Record, bool, time.Time) { t.Error("it is told") })
			for _, err := range []error{err, errList, errWatch} {
				if err == nil || !strings.Contains(err.Error(), row.want) || !strings.Contains(err.Error(), server.Host) {
					t.Errorf("%v, want %q", err, row.want)
				}
			}
			put(t, stranger, prefix+"a", good)
			if got, err := s.Get(t.Context(), "a"); err != nil || string(got.Value) != `{"version":1}` {
				t.Errorf("put right: %+v, %v", got, err)
			}
		})
	}
}

// TestConcurrent: answers that arrive out of order are not mistaken for a cluster whose revision
// went back.
func TestConcurrent(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t)
	s := open(t, at(server))
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			record, err := s.Create(t.Context(), fmt.Sprint(i), nil)
			for n := 0; n < 50 && err == nil; n++ {
				if n%2 == 0 {
					_, err = s.List(t.Context(), "")
				} else {
					record, err = s.Replace(t.Context(), record, nil)
				}
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}

// TestUsers: a user without permission gets an error that says what to do.
func TestUsers(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t)
	admin := server.Client()
	for _, step := range []func() error{
		func() error { _, err := admin.UserAdd(t.Context(), "root", "secret of root"); return err },
		func() error { _, err := admin.UserGrantRole(t.Context(), "root", "root"); return err },
		func() error { _, err := admin.RoleAdd(t.Context(), "daypass"); return err },
		func() error {
			_, err := admin.RoleGrantPermission(t.Context(), "daypass", prefix, clientv3.GetPrefixRangeEnd(prefix), clientv3.PermissionType(clientv3.PermReadWrite))
			return err
		},
		func() error { _, err := admin.UserAdd(t.Context(), "daypass", "secret of daypass"); return err },
		func() error { _, err := admin.UserGrantRole(t.Context(), "daypass", "daypass"); return err },
		func() error { _, err := admin.UserAdd(t.Context(), "nobody", "secret of nobody"); return err },
		func() error { _, err := admin.AuthEnable(t.Context()); return err },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	as := func(user, password string) error {
		config := at(server)
		config.Username, config.Password = user, "secret of "+keyring.Secret(password)
		s, err := tryOpen(t, config)
		if err == nil {
			_, err = s.List(t.Context(), "")
		}
		if err == nil {
			_, err = s.Create(t.Context(), "a", nil)
		}
		return err
	}
	if err := as("daypass", "daypass"); err != nil {
		t.Errorf("the right user: %v", err)
	}
	for _, row := range []struct{ user, password, want string }{
		{"daypass", "root", "authentication failed"},
		{"stranger", "stranger", "authentication failed"},
		{"nobody", "nobody", "permission denied: `etcdctl role grant-permission ROLE readwrite daypass/ --prefix`"},
	} {
		err := as(row.user, row.password)
		if err == nil || !strings.Contains(err.Error(), row.want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v, want %q", row.user, err, row.want)
		}
	}
	s := open(t, at(server))
	if _, err := s.List(t.Context(), ""); err == nil || !strings.Contains(err.Error(), "user name is empty") {
		t.Errorf("nobody at all: %v", err)
	}
}

// TestTokens: the client exchanges its password for a token, which etcd forgets when it
// restarts. Calls work again afterwards.
func TestTokens(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t)
	admin := server.Client()
	if _, err := admin.UserAdd(t.Context(), "root", "secret"); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.UserGrantRole(t.Context(), "root", "root"); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.AuthEnable(t.Context()); err != nil {
		t.Fatal(err)
	}
	config := at(server)
	config.Username, config.Password = "root", "secret"
	s := open(t, config)
	create(t, s, "a", "1")
	server.Stop()
	server.Start()
	heals(t, s, "a=1")
}

// TestContext: when the caller's context ends, the error is the context's.
func TestContext(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t)
	link := etcdtest.NewLine(t, server.Host)
	s := open(t, etcdstore.Config{Endpoints: []string{link.URL}})
	old := create(t, s, "a", "1")
	link.Stall(true)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, errGet := s.Get(ctx, "a")
	_, errReplace := s.Replace(ctx, old, nil)
	errWatch := s.Watch(ctx, "", func([]registry.Record, bool, time.Time) {})
	for _, err := range []error{errGet, errReplace, errWatch} {
		if err != context.DeadlineExceeded {
			t.Errorf("%v, want the context's", err)
		}
	}
}

// TestTooLarge: a record that is too large is an error, and leaves the store unchanged.
func TestTooLarge(t *testing.T) {
	s := open(t, at(etcdtest.Start(t)))
	if _, err := s.Create(t.Context(), "a", make([]byte, 1<<20)); err == nil || !strings.Contains(err.Error(), "larger than max") {
		t.Errorf("Create(1 MiB) = %v", err)
	}
	if _, err := s.Get(t.Context(), "a"); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("Get() = %v", err)
	}
	const n = 20
	value := strings.Repeat("x", 64<<10)
	for i := range n {
		create(t, s, fmt.Sprint(i), value)
	}
	if list, err := s.List(t.Context(), ""); len(list) != n || err != nil {
		t.Errorf("List() = %d records, %v", len(list), err)
	}
}

// TestReasons: errors of gRPC and etcd get a text that is the same each time.
func TestReasons(t *testing.T) {
	const at = "etcd at 10.0.0.1:2379: "
	for _, row := range []struct {
		err  error
		want string
	}{
		{status.Error(codes.Unavailable, `last connection error: connection error: desc = "transport: Error while dialing: dial tcp 10.0.0.1:2379: connect: connection refused"`),
			"dial tcp 10.0.0.1:2379: connect: connection refused"},
		{status.Error(codes.Unavailable, `connection error: desc = "transport: authentication handshake failed: tls: \"a\" is not \"b\""`),
			`authentication handshake failed: tls: "a" is not "b"`},
		{status.Error(codes.Unavailable, `error reading from server: read tcp 10.0.0.2:39752->10.0.0.1:2379: read: connection reset by peer`),
			"error reading from server: read: connection reset by peer"},
		{status.Error(codes.Unavailable, `connection error: desc = "error reading server preface: raw-read tcp 10.0.0.2:53588->10.0.0.1:2379: use of closed network connection"`),
			"no member has answered in time: has the cluster lost its quorum?"},
		{context.DeadlineExceeded, "no member has answered in time: has the cluster lost its quorum?"},
		{rpctypes.ErrNoLeader, "no leader"},
		{rpctypes.ErrNoSpace, "mvcc: database space exceeded: compact and defragment it, then `etcdctl alarm disarm`"},
		{rpctypes.ErrPermissionDenied, "permission denied: `etcdctl role grant-permission ROLE readwrite daypass/ --prefix`"},
		{errors.New("something else"), "something else"},
	} {
		if got := etcdstore.Reason(row.err); got != at+row.want {
			t.Errorf("%v: %q, want %q", row.err, got, at+row.want)
		}
	}
}

// BenchmarkLook measures a look of a watch when nothing has changed.
func BenchmarkLook(b *testing.B) {
	for _, n := range []int{0, 100, 1000, 10000} {
		b.Run(fmt.Sprint(n, " records"), func(b *testing.B) {
			server := etcdtest.Start(b)
			s, client := open(b, at(server)), server.Client()
			var revision int64
			for i := range n {
				key := fmt.Sprintf("revocation/principal/arn:aws:iam::123456789012:user%%2F%d", i)
				value := fmt.Sprintf(`{"version":1,"principal":"arn:aws:iam::123456789012:user/%d","issued_before":"2026-01-02T03:04:05Z","revoked_at":"2026-01-02T03:04:05Z","revoked_by":"arn:aws:iam::123456789012:user/admin"}`, i)
				answer, err := client.Put(b.Context(), prefix+key, etcdstore.Format(key, value))
				if err != nil {
					b.Fatal(err)
				}
				revision = answer.Header.Revision
			}
			for b.Loop() {
				if same, err := s.Look(b.Context(), n, revision); !same || err != nil {
					b.Fatal(same, err)
				}
			}
		})
	}
}
