package gateway_test

import (
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/gateway"
	"github.com/daypass/daypass/internal/handover"
	"github.com/daypass/daypass/internal/postgres"
	"github.com/daypass/daypass/test/pgtest"
)

// network is a faulty network in front of a server. Its address stays the same when the server
// moves.
type network struct {
	t        testing.TB
	listener net.Listener

	mu     sync.Mutex // guards the fields below
	server string     // the address that connections lead to; empty: they are reset
	delay  time.Duration
	frozen chan struct{} // nil, or closed when bytes flow again
	conns  map[net.Conn]bool
}

func newNetwork(t testing.TB, server string) *network {
	n := &network{t: t, listener: listen(t), server: server, conns: map[net.Conn]bool{}}
	go func() {
		for {
			conn, err := n.listener.Accept()
			if err != nil {
				return
			}
			go n.carry(conn)
		}
	}()
	t.Cleanup(func() {
		n.listener.Close()
		n.thaw()
		n.cut("")
	})
	return n
}

func (n *network) addr() string { return n.listener.Addr().String() }

// lead sends new connections to another server and leaves existing ones alone.
func (n *network) lead(server string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.server = server
}

// cut resets every connection and sends new ones to another server.
func (n *network) cut(server string) {
	n.lead(server)
	n.mu.Lock()
	defer n.mu.Unlock()
	for c := range n.conns {
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		c.Close()
	}
}

// slow delays every read by d, each way.
func (n *network) slow(d time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.delay = d
}

// freeze silently drops everything that is sent from now on.
func (n *network) freeze() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.frozen == nil {
		n.frozen = make(chan struct{})
	}
}

func (n *network) thaw() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.frozen != nil {
		close(n.frozen)
		n.frozen = nil
	}
}

func (n *network) keep(c net.Conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.conns[c] = true
}

func (n *network) drop(c net.Conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.conns, c)
	c.Close()
}

func (n *network) state() (string, time.Duration, chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.server, n.delay, n.frozen
}

func (n *network) carry(client net.Conn) {
	n.keep(client)
	defer n.drop(client)
	server, _, _ := n.state()
	if server == "" {
		_ = client.(*net.TCPConn).SetLinger(0)
		return
	}
	upstream, err := net.Dial("tcp", server)
	if err != nil {
		_ = client.(*net.TCPConn).SetLinger(0)
		return
	}
	n.keep(upstream)
	defer n.drop(upstream)
	var both sync.WaitGroup
	both.Go(func() { n.pump(upstream, client) })
	both.Go(func() { n.pump(client, upstream) })
	both.Wait()
}

func (n *network) pump(to, from net.Conn) {
	buffer := make([]byte, 64<<10)
	for {
		size, err := from.Read(buffer)
		_, delay, frozen := n.state()
		if frozen != nil {
			<-frozen
		}
		time.Sleep(delay) // the network is slow
		if size > 0 {
			if _, err := to.Write(buffer[:size]); err != nil {
				from.Close()
				return
			}
		}
		if err == io.EOF {
			_ = to.(*net.TCPConn).CloseWrite()
			return
		}
		if err != nil {
			to.Close()
			return
		}
	}
}

// hosted is a server that belongs to one test and whose directory outlives its processes.
type hosted struct {
	*postgres.Server
	t    testing.TB
	dir  string
	inst postgres.Installation
}

// openDir makes a directory that PostgreSQL's account can enter.
func openDir(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func host(t testing.TB, dir string, settings map[string]string) *hosted {
	t.Helper()
	return hostOf(t, pgtest.Start(t).Installation, dir, settings)
}

func hostOf(t testing.TB, inst postgres.Installation, dir string, settings map[string]string) *hosted {
	t.Helper()
	h := &hosted{t: t, dir: dir, inst: inst}
	h.start(settings)
	t.Cleanup(h.stop)
	return h
}

func (h *hosted) start(settings map[string]string) {
	h.t.Helper()
	server, err := postgres.Start(h.t.Context(), h.inst, postgres.Options{Dir: h.dir, Settings: settings, Templates: pgtest.Templates()})
	if err != nil {
		h.t.Fatal(err)
	}
	h.Server = server
}

func (h *hosted) stop() {
	if err := h.Stop(); err != nil {
		h.t.Errorf("stopping PostgreSQL: %v", err)
	}
}

func (h *hosted) addr() string { return net.JoinHostPort(h.Host(), strconv.Itoa(h.Port())) }

func (h *hosted) exec(sql string) {
	h.t.Helper()
	conn, err := pgx.Connect(h.t.Context(), h.ConnString(postgres.Superuser, "postgres"))
	if err != nil {
		h.t.Fatal(err)
	}
	defer conn.Close(h.t.Context())
	if _, err := conn.PgConn().Exec(h.t.Context(), sql).ReadAll(); err != nil {
		h.t.Fatalf("%s: %v", sql, err)
	}
}

const adminPassword = "administrative secret"

// admit creates the administrative login as the documentation says.
func (h *hosted) admit() {
	h.t.Helper()
	h.exec("create role daypass login createrole password '" + adminPassword + "'")
}

// pair returns a primary with an administrative login, and a standby that streams from it.
func pair(t testing.TB) (primary, standby *hosted) {
	t.Helper()
	return pairOf(t, pgtest.Start(t).Installation)
}

func pairOf(t testing.TB, inst postgres.Installation) (primary, standby *hosted) {
	t.Helper()
	root := openDir(t)
	primary = hostOf(t, inst, filepath.Join(root, "a"), nil)
	primary.admit()
	primary.stop() // while the server is stopped, a copy of its files is a base backup
	if out, err := exec.Command("cp", "-a", filepath.Join(root, "a"), filepath.Join(root, "b")).CombinedOutput(); err != nil {
		t.Fatalf("copying the data directory: %v: %s", err, out)
	}
	data := filepath.Join(root, "b", "pgdata")
	// Give the file the same owner as the files beside it. Its content does not matter.
	if out, err := exec.Command("cp", "-a", filepath.Join(data, "PG_VERSION"), filepath.Join(data, "standby.signal")).CombinedOutput(); err != nil {
		t.Fatalf("making standby.signal: %v: %s", err, out)
	}
	primary.start(nil)
	config, err := pgx.ParseConfig(primary.ConnString(postgres.Superuser, "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	standby = hostOf(t, inst, filepath.Join(root, "b"), map[string]string{
		"primary_conninfo": "host=" + primary.Host() + " port=" + strconv.Itoa(primary.Port()) + " user=postgres password=" + config.Password,
	})
	super := pgtest.Connect(t, primary.ConnString(postgres.Superuser, "postgres"))
	pgtest.Eventually(t, "the standby streams", func() bool {
		return value[int](t, super, "select count(*) from pg_stat_replication where state = 'streaming'") == 1
	})
	_ = super.Close(t.Context())
	return primary, standby
}

// behind adds a cluster whose hosts are at addresses, administered by the documented login.
// settings are further settings of the connection string.
func (f *fixture) behind(identifier, attrs string, addresses ...string) *gateway.Cluster {
	f.t.Helper()
	var hosts, ports string
	for i, a := range addresses {
		h, p, err := net.SplitHostPort(a)
		if err != nil {
			f.t.Fatal(err)
		}
		if i > 0 {
			hosts, ports = hosts+",", ports+","
		}
		hosts, ports = hosts+h, ports+p
	}
	config, err := pgx.ParseConfig("host=" + hosts + " port=" + ports + " user=daypass dbname=postgres sslmode=disable target_session_attrs=" + attrs)
	if err != nil {
		f.t.Fatal(err)
	}
	config.Password = adminPassword
	admin := handover.New(dbuser.Config{Cluster: identifier, Conn: config.Copy(), Key: [32]byte{7, 8, 9}, TargetSessionAttrs: attrs})
	f.t.Cleanup(admin.Close)
	return f.add(&gateway.Cluster{Identifier: identifier, Database: "postgres", Admin: admin, Upstream: &config.Config, TargetSessionAttrs: attrs})
}

// to returns a grant for another cluster.
func (f *fixture) to(cluster, user string, groups ...string) grant {
	g := f.grant(user, groups...)
	g.Cluster = cluster
	return g
}

// logon tries to log on and returns how long it took.
func (f *fixture) logon(g grant) (*pgx.Conn, time.Duration, error) {
	f.t.Helper()
	began := time.Now()
	conn, err := f.try(g.LogonName(), f.mint(g), "postgres")
	took := time.Since(began)
	if took > 10*time.Second+patience { // the 10 s that a logon may take
		f.t.Errorf("a logon took %v", took)
	}
	return conn, took, err
}

// patience is the extra time allowed on a machine that is busy with other tests. The recovery time
// itself is logged.
const patience = 15 * time.Second

// works fails the test unless a logon succeeds within the time. It retries as clients do.
func (f *fixture) works(within time.Duration, g func() grant) *pgx.Conn {
	f.t.Helper()
	for end := time.Now().Add(within + patience); ; {
		conn, _, err := f.logon(g())
		if err == nil {
			return conn
		}
		if time.Now().After(end) {
			f.t.Fatalf("no logon works after %v: %v", within, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
