package clustercheck_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/daypass/daypass/internal/clustercheck"
	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/postgres"
	"github.com/daypass/daypass/test/clustertest"
	"github.com/daypass/daypass/test/pgtest"
)

// inRecovery starts a server that is in recovery, as a standby is, with a login.
func inRecovery(t *testing.T, inst postgres.Installation, login pgtest.Login) *postgres.Server {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} { // for PostgreSQL's account
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	options := postgres.Options{Dir: dir, Templates: pgtest.Templates()}
	server, err := postgres.Start(t.Context(), inst, options)
	if err != nil {
		t.Fatal(err)
	}
	super, err := pgx.Connect(t.Context(), server.ConnString(postgres.Superuser, "postgres"))
	if err == nil {
		_, err = super.Exec(t.Context(), fmt.Sprintf("create role %s login createrole password '%s'", pgtest.Quote(login.Name), login.Password))
		_ = super.Close(t.Context())
	}
	if stopped := server.Stop(); err != nil || stopped != nil {
		t.Fatal(err, stopped)
	}
	// The copy has the owner of the file beside it. Its content does not matter.
	data := filepath.Join(dir, "pgdata")
	if out, err := exec.Command("cp", "-a", filepath.Join(data, "PG_VERSION"), filepath.Join(data, "standby.signal")).CombinedOutput(); err != nil {
		t.Fatalf("making standby.signal: %v: %s", err, out)
	}
	if server, err = postgres.Start(t.Context(), inst, options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
	return server
}

// TestCheckOfSeveralHosts: each host is named, with what it is or why it is down and what to do.
func TestCheckOfSeveralHosts(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t)
	f := plain(t, s)
	standby := inRecovery(t, s.Installation, f.As)
	check := func(addresses ...string) (clustercheck.Report, string) {
		t.Helper()
		var hosts, ports []string
		for _, a := range addresses {
			host, port, _ := net.SplitHostPort(a)
			hosts, ports = append(hosts, host), append(ports, port)
		}
		config, err := pgx.ParseConfig(fmt.Sprintf("host=%s port=%s user='%s' password='%s' dbname=postgres sslmode=disable",
			strings.Join(hosts, ","), strings.Join(ports, ","), f.As.Name, f.As.Password))
		if err != nil {
			t.Fatal(err)
		}
		admin := f.Another(func(c *dbuser.Config) { c.Conn = config })
		r, err := clustercheck.Check(t.Context(), admin.Admin)
		if err != nil {
			t.Fatal(err)
		}
		return r, clustertest.Text(r)
	}
	const free = "127.0.0.1:1"
	primary, second := net.JoinHostPort("127.0.0.1", strconv.Itoa(s.Port())), net.JoinHostPort("127.0.0.1", strconv.Itoa(standby.Port()))
	r, text := check(free, second, primary, net.JoinHostPort("localhost", strconv.Itoa(s.Port())))
	var states []clustercheck.HostState
	for _, h := range r.Hosts {
		states = append(states, h.State)
	}
	if got := fmt.Sprint(states); got != "[down standby primary primary]" {
		t.Errorf("hosts are %s: %s", got, text)
	}
	for _, want := range []string{
		"host " + free + " is down: nothing listens there: start PostgreSQL there, and check its port and listen_addresses, or take it out of upstream",
		"host " + second + " answers and is a standby", "host " + primary + " answers and is the primary",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in %s", want, text)
		}
	}
	if r.Broken() {
		t.Errorf("a cluster with a primary is broken: %s", text)
	}
	if r, text = check(free, second); !r.Broken() {
		t.Errorf("a cluster without a primary is not broken: %s", text)
	}
	if r, text = check(primary); len(r.Hosts) > 0 {
		t.Errorf("hosts of a cluster with one: %s", text)
	}
	_, text = check(primary, net.JoinHostPort("127.0.0.1", strconv.Itoa(alone(t, s, "CREATEROLE").Port())))
	if want := "is unusable: it refuses the administrative login (28P01): check its pg_hba.conf and the login's password there"; !strings.Contains(text, want) {
		t.Errorf("no %q in %s", want, text)
	}
	super := pgtest.Connect(t, standby.ConnString(postgres.Superuser, "postgres"))
	clustertest.Exec(t, super, "select pg_promote()")
	if r, text = check(primary, second); !r.Broken() || !strings.Contains(text, "are all primaries") {
		t.Errorf("two primaries: %s", text)
	}
}
