package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/daypass/daypass/internal/postgres"
	"github.com/daypass/daypass/test/pgtest"
)

// another adds a second, healthy cluster. The returned function fails the test unless that cluster
// works undisturbed.
func (f *fixture) another() func() {
	f.t.Helper()
	pg := pgtest.Start(f.t)
	c := f.real(pg)
	return func() {
		f.t.Helper()
		began := time.Now()
		conn := f.connect(f.grant("neighbour"), c.Database)
		if took := time.Since(began); took > 10*time.Second+patience {
			f.t.Errorf("a logon to another cluster took %v", took)
		}
		_ = conn.Close(context.Background())
	}
}

func TestTargetDown(t *testing.T) {
	t.Parallel() // the test mostly waits
	f := newFixture(t, nil)
	neighbour := f.another()
	pg := host(t, openDir(t), nil)
	pg.admit()
	n := newNetwork(t, "")
	f.behind("down", "any", n.addr())
	alice := func() grant { return f.to("down", "alice") }
	for range 5 {
		_, took, err := f.logon(alice())
		f.refused(err, "08001", `cluster "down" cannot be reached`)
		if took > 10*time.Second+patience {
			t.Errorf("a refused connection took %v", took)
		}
	}
	neighbour()
	n.lead(pg.addr())
	conn := f.works(3*time.Second, alice)
	n.cut("")
	if err := conn.Ping(t.Context()); err == nil {
		t.Error("the session outlives its connection")
	}
	_, _, err := f.logon(alice())
	f.refused(err, "08001", "cannot be reached")
	n.cut(pg.addr())
	f.works(3*time.Second, alice)
	neighbour()
}

// TestTargetFrozen: the target stops answering, and later goes on.
func TestTargetFrozen(t *testing.T) {
	t.Parallel() // the test mostly waits
	f := newFixture(t, nil)
	neighbour := f.another()
	pg := host(t, openDir(t), nil)
	pg.admit()
	n := newNetwork(t, pg.addr())
	f.behind("frozen", "any", n.addr())
	alice := func() grant { return f.to("frozen", "alice") }
	f.works(5*time.Second, alice)
	n.freeze()
	_, _, err := f.logon(alice()) // f.logon fails the test if this takes too long
	if refused, ok := errors.AsType[*pgconn.PgError](err); !ok || refused.Code != "08001" && refused.Code != "08006" {
		t.Errorf("a logon to a frozen cluster: %v", err)
	}
	neighbour()
	n.thaw()
	f.works(5*time.Second, alice)
}

func TestTargetSlow(t *testing.T) {
	t.Parallel() // the test mostly waits
	f := newFixture(t, nil)
	neighbour := f.another()
	pg := host(t, openDir(t), nil)
	pg.admit()
	n := newNetwork(t, pg.addr())
	n.slow(50 * time.Millisecond)
	f.behind("slow", "any", n.addr())
	conn, took, err := f.logon(f.to("slow", "alice"))
	if err != nil {
		t.Fatalf("a logon over a slow network: %v", err)
	}
	t.Logf("a first logon at a round trip of 100 ms takes %v", took)
	if got := value[int](t, conn, "select 1"); got != 1 {
		t.Error(got)
	}
	neighbour()
	n.slow(20 * time.Second)
	_, _, err = f.logon(f.to("slow", "alice"))
	if refused, ok := errors.AsType[*pgconn.PgError](err); !ok || !strings.HasPrefix(refused.Code, "08") {
		t.Errorf("a logon to a cluster that is too slow: %v", err)
	}
	neighbour()
	n.slow(0)
	n.cut(pg.addr())
	f.works(5*time.Second, func() grant { return f.to("slow", "alice") })
}

// TestTargetStarting: if the server is starting, the client is told so.
func TestTargetStarting(t *testing.T) {
	t.Parallel() // the test mostly waits
	f := newFixture(t, nil)
	neighbour := f.another()
	pg := host(t, openDir(t), nil)
	pg.admit()
	starting, _ := scripted(t, sends(fatalMessage("57P03", "the database system is starting up")))
	n := newNetwork(t, starting)
	f.behind("starting", "any", n.addr())
	alice := func() grant { return f.to("starting", "alice") }
	_, _, err := f.logon(alice())
	f.refused(err, "57P03", `cluster "starting" is starting up or shutting down`)
	neighbour()
	n.lead(pg.addr())
	f.works(3*time.Second, alice)
	n.lead(starting) // the administrative connection still works; only the session is refused
	_, _, err = f.logon(alice())
	f.refused(err, "57P03", "the database system is starting up")
}

func TestTargetOutOfConnections(t *testing.T) {
	t.Parallel() // the test mostly waits
	f := newFixture(t, nil)
	neighbour := f.another()
	pg := host(t, openDir(t), map[string]string{"max_connections": "9", "superuser_reserved_connections": "3"})
	pg.admit()
	super := pgtest.Connect(t, pg.ConnString(postgres.Superuser, "postgres"))
	run(t, super, "create role crowd login password 'crowd'")
	others := func() int {
		return value[int](t, super, "select count(*) from pg_stat_activity where backend_type = 'client backend' and usename <> 'crowd'")
	}
	pgtest.Eventually(t, "no connection but this one", func() bool { return others() == 1 })
	f.behind("full", "any", pg.addr())
	alice := func() grant { return f.to("full", "alice") }
	fill := func() (crowd []*pgx.Conn) {
		// A connection that has been closed keeps its place for a moment.
		pgtest.Eventually(t, "all places are taken", func() bool {
			conn, err := pgx.Connect(t.Context(), "host=127.0.0.1 port="+strconv.Itoa(pg.Port())+" user=crowd password=crowd dbname=postgres sslmode=disable")
			if err == nil {
				crowd = append(crowd, conn)
			}
			return err != nil && len(crowd)+others() == 9-3
		})
		return crowd
	}
	leave := func(crowd []*pgx.Conn) {
		for _, c := range crowd {
			_ = c.Close(context.Background())
		}
	}
	crowd := fill()
	_, _, err := f.logon(alice())
	f.refused(err, "53300", `cluster "full" has no connection left`)
	neighbour()
	leave(crowd)
	conn := f.works(5*time.Second, alice)
	crowd = fill()
	_, _, err = f.logon(alice())
	f.refused(err, "53300", "") // the server's own words
	if got := value[string](t, conn, "select current_user"); got != "alice" {
		t.Errorf("the session that was there is %q", got)
	}
	leave(crowd)
	f.works(5*time.Second, alice)
}

func TestTargetRestarted(t *testing.T) {
	t.Parallel() // the test mostly waits
	f := newFixture(t, nil)
	pg := host(t, openDir(t), nil)
	pg.admit()
	n := newNetwork(t, pg.addr())
	f.behind("restarted", "any", n.addr())
	alice := func() grant { return f.to("restarted", "alice") }
	conn := f.works(5*time.Second, alice)
	pg.stop()
	var ended *pgconn.PgError
	if _, err := conn.Exec(t.Context(), "select 1"); !errors.As(err, &ended) || ended.Code != "57P01" {
		t.Errorf("a session whose server shut down: %v, want 57P01", err)
	}
	pgtest.Eventually(t, "the session ends", func() bool { return len(f.server.Sessions()) == 0 })
	pg.start(nil)
	n.lead(pg.addr())
	f.works(3*time.Second, alice)
}

// TestFailover promotes a standby. Logons work within 5 s after that, even for users that have
// to be created.
func TestFailover(t *testing.T) {
	t.Parallel() // the test mostly waits
	for name, lose := range map[string]func(primary *hosted, n *network){
		"stopped": func(primary *hosted, n *network) { n.cut(""); primary.stop() },
		"silent":  func(_ *hosted, n *network) { n.freeze() },
	} {
		for _, attrs := range []string{"any", "read-write"} {
			t.Run(name+" "+attrs, func(t *testing.T) {
				f := newFixture(t, nil)
				primary, standby := pair(t)
				a, b := newNetwork(t, primary.addr()), newNetwork(t, standby.addr())
				f.behind("pair", attrs, a.addr(), b.addr())
				conn := f.works(10*time.Second, func() grant { return f.to("pair", "alice") })
				if value[bool](t, conn, "select pg_is_in_recovery()") {
					t.Error("a session of the first host is on the standby")
				}
				lose(primary, a)
				standby.exec("select pg_promote()")
				began := time.Now()
				conn = f.works(5*time.Second, func() grant { return f.to("pair", "newcomer") })
				took := time.Since(began)
				t.Logf("a new user logs on %v after the promotion", took)
				if took > 20*time.Second+patience {
					t.Errorf("that is too long")
				}
				if got := value[string](t, conn, "select current_user"); got != "newcomer" {
					t.Errorf("current_user = %q", got)
				}
				if _, took, _ := f.logon(f.to("pair", "another")); took > 5*time.Second+patience {
					t.Errorf("the logon after that took %v", took)
				}
			})
		}
	}
}

// TestStandby: sessions go to a standby, users are made on the primary.
func TestStandby(t *testing.T) {
	t.Parallel() // the test mostly waits
	f := newFixture(t, nil)
	primary, standby := pair(t)
	primary.exec("create role analysts; grant analysts to daypass with admin option")
	f.behind("replica", "standby", primary.addr(), standby.addr())
	late := 0
	for i := range 20 {
		new := func() grant { return f.to("replica", fmt.Sprintf("new%d", i), "analysts") }
		conn, _, err := f.logon(new())
		if err != nil { // on a busy machine the standby may take a second for an answer
			late++
			t.Logf("the first logon of a new user on a standby: %v", err)
			conn = f.works(5*time.Second, new)
		}
		if !value[bool](t, conn, "select pg_is_in_recovery()") {
			t.Fatal("the session is not on the standby")
		}
		_ = conn.Close(t.Context())
	}
	if late > 5 {
		t.Errorf("%d of 20 new users had to try again", late)
	}
	standby.exec("select pg_wal_replay_pause()")
	_, took, err := f.logon(f.to("replica", "late"))
	f.refused(err, "57P03", `the standby of cluster "replica" has not received the session role yet`)
	t.Logf("refused after %v", took)
	if conn, _, err := f.logon(f.to("replica", "new0", "analysts")); err != nil {
		t.Errorf("a known user while the replay stands still: %v", err)
	} else {
		_ = conn.Close(t.Context())
	}
	// Another host that hangs does not change that.
	hanging, _ := scripted(t, func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) })
	f.behind("three", "standby", hanging, primary.addr(), standby.addr())
	for i := range 10 {
		_, _, err = f.logon(f.to("three", fmt.Sprintf("later%d", i)))
		if refused := (*pgconn.PgError)(nil); !errors.As(err, &refused) || refused.Code != "08004" {
			break
		}
		// On a busy machine the standby may take too long for an answer. It is asked again after 5 s.
		t.Logf("the first logon of a new user beside a host that hangs: %v", err)
		time.Sleep(time.Second)
	}
	f.refused(err, "57P03", `the standby of cluster "three" has not received the session role yet`)
	standby.exec("select pg_wal_replay_resume()")
	f.works(5*time.Second, func() grant { return f.to("replica", "late") })
}

// TestTargetSessionAttrs: sessions go to the hosts that the setting allows. From PostgreSQL 14 on a
// server reports its kind without being asked; the gateway has to query older ones.
func TestTargetSessionAttrs(t *testing.T) {
	t.Parallel() // the test mostly waits
	versions := pgtest.Versions()
	if len(versions) > 2 {
		versions = []postgres.Installation{versions[0], versions[len(versions)-1]}
	}
	for _, inst := range versions {
		t.Run(strconv.Itoa(inst.Major), func(t *testing.T) {
			f := newFixture(t, nil)
			primary, standby := pairOf(t, inst)
			for _, row := range []struct {
				attrs   string
				hosts   []string
				standby bool
			}{
				{"read-write", []string{standby.addr(), primary.addr()}, false},
				{"primary", []string{standby.addr(), primary.addr()}, false},
				{"standby", []string{primary.addr(), standby.addr()}, true},
				{"read-only", []string{primary.addr(), standby.addr()}, true},
				{"prefer-standby", []string{primary.addr(), standby.addr()}, true},
				{"prefer-standby", []string{primary.addr()}, false},
			} {
				f.behind(row.attrs, row.attrs, row.hosts...)
				conn, _, err := f.logon(f.to(row.attrs, "alice"))
				if err != nil {
					t.Errorf("%s: %v", row.attrs, err)
					continue
				}
				if got := value[bool](t, conn, "select pg_is_in_recovery()"); got != row.standby {
					t.Errorf("%s of %d hosts: on the standby = %t, want %t", row.attrs, len(row.hosts), got, row.standby)
				}
				_ = conn.Close(t.Context())
			}
			// A standby that does not know the session role yet delays the logon only briefly.
			standby.exec("select pg_wal_replay_pause()")
			f.behind("behind", "read-write", standby.addr(), primary.addr())
			if _, _, err := f.logon(f.to("behind", "newcomer")); err != nil {
				t.Errorf("read-write, behind a standby whose replay stands still: %v", err)
			}
			standby.exec("select pg_wal_replay_resume()")

			f.behind("alone", "standby", primary.addr())
			_, _, err := f.logon(f.to("alone", "alice"))
			f.refused(err, "08006", `the connection to cluster "alone" failed`)
			primary.exec("alter role alice set default_transaction_read_only = on")
			f.behind("careful", "read-write", primary.addr())
			_, _, err = f.logon(f.to("careful", "alice"))
			f.refused(err, "08006", `the connection to cluster "careful" failed`)
		})
	}
}

// TestOnlyAStandby: the whole cluster is read-only. Users who logged on recently can still log
// on.
func TestOnlyAStandby(t *testing.T) {
	t.Parallel() // the test mostly waits
	f := newFixture(t, nil)
	neighbour := f.another()
	primary, standby := pair(t)
	n := newNetwork(t, primary.addr())
	f.behind("pair", "any", n.addr(), standby.addr())
	f.works(10*time.Second, func() grant { return f.to("pair", "alice") })
	pgtest.Eventually(t, "replay", func() bool {
		conn := pgtest.Connect(t, standby.ConnString(postgres.Superuser, "postgres"))
		defer conn.Close(t.Context())
		return value[int](t, conn, "select count(*) from pg_roles where rolname = 'IAM:alice'") == 1
	})
	n.cut("")
	conn := f.works(5*time.Second, func() grant { return f.to("pair", "alice") })
	if !value[bool](t, conn, "select pg_is_in_recovery()") {
		t.Error("the session is not on the standby")
	}
	_, _, err := f.logon(f.to("pair", "newcomer"))
	f.refused(err, "57P03", `cluster "pair" has no primary`)
	neighbour()
	n.lead(primary.addr())
	f.works(8*time.Second, func() grant { return f.to("pair", "newcomer") })
}

// TestReadOnlyByDefault: default_transaction_read_only keeps sessions from writing, but not the
// administrative login.
func TestReadOnlyByDefault(t *testing.T) {
	f := newFixture(t, nil)
	pg := host(t, openDir(t), nil)
	pg.admit()
	pg.exec("alter system set default_transaction_read_only = on")
	pg.exec("select pg_reload_conf()")
	pgtest.Eventually(t, "reload", func() bool {
		conn := pgtest.Connect(t, pg.ConnString(postgres.Superuser, "postgres"))
		defer conn.Close(t.Context())
		return value[string](t, conn, "show default_transaction_read_only") == "on"
	})
	f.behind("careful", "any", pg.addr())
	conn := f.works(3*time.Second, func() grant { return f.to("careful", "newcomer") })
	if got := value[string](t, conn, "show transaction_read_only"); got != "on" {
		t.Errorf("transaction_read_only = %s in the session", got)
	}
}

// TestPooler: behind a pooler the next statement may run in another session, so the gateway
// refuses to run any statement there.
func TestPooler(t *testing.T) {
	t.Parallel() // the test mostly waits
	f := newFixture(t, nil)
	neighbour := f.another()
	pg := host(t, openDir(t), nil)
	pg.admit()
	for name, addr := range map[string]string{"scripted": rekeyed(t, pg.addr()), "pgbouncer": pgbouncer(t, pg)} {
		if addr == "" {
			t.Log("pgbouncer is not installed; the scripted one stands for it")
			continue
		}
		t.Run(name, func(t *testing.T) {
			f.behind("pooled", "any", addr)
			_, _, err := f.logon(f.to("pooled", "alice"))
			f.refused(err, "08001", `cluster "pooled" is behind a connection pooler; its upstream has to name the PostgreSQL server itself`)
		})
	}
	neighbour()
	conn := pgtest.Connect(t, pg.ConnString(postgres.Superuser, "postgres"))
	if got := value[int](t, conn, "select count(*) from pg_roles where rolname like 'IAM%' or rolname = 'alice'"); got != 0 {
		t.Errorf("%d roles were made through a pooler", got)
	}
}

// rekeyed relays everything, but replaces the cancel keys with its own.
func rekeyed(t *testing.T, server string) string {
	l := listen(t)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			upstream, err := net.Dial("tcp", server)
			if err != nil {
				client.Close()
				return
			}
			go func() {
				buffer := make([]byte, 1<<16)
				for {
					n, err := upstream.Read(buffer)
					if i := strings.Index(string(buffer[:n]), "K\x00\x00\x00\x0c"); i >= 0 {
						buffer[i+5] ^= 0x40
					}
					if _, writeErr := client.Write(buffer[:n]); err != nil || writeErr != nil {
						client.Close()
						return
					}
				}
			}()
			go func() {
				buffer := make([]byte, 1<<16)
				for {
					n, err := client.Read(buffer)
					if _, writeErr := upstream.Write(buffer[:n]); err != nil || writeErr != nil {
						upstream.Close()
						return
					}
				}
			}()
		}
	}()
	return l.Addr().String()
}

// pgbouncer starts a PgBouncer in transaction mode. It returns "" if PgBouncer is not installed.
func pgbouncer(t *testing.T, pg *hosted) string {
	path, err := exec.LookPath("pgbouncer")
	if err != nil {
		if path, err = exec.LookPath("/usr/sbin/pgbouncer"); err != nil {
			return ""
		}
	}
	dir := t.TempDir()
	l := listen(t)
	addr := l.Addr().String()
	_, port, _ := net.SplitHostPort(addr)
	l.Close()
	ini := filepath.Join(dir, "pgbouncer.ini")
	users := filepath.Join(dir, "users.txt")
	text := fmt.Sprintf("[databases]\n* = host=127.0.0.1 port=%d\n[pgbouncer]\nlisten_addr=127.0.0.1\nlisten_port=%s\nunix_socket_dir=\nauth_type=scram-sha-256\nauth_file=%s\npool_mode=transaction\nignore_startup_parameters=extra_float_digits\n",
		pg.Port(), port, users)
	for file, content := range map[string]string{ini: text, users: fmt.Sprintf("\"daypass\" %q\n", adminPassword)} {
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	args := []string{ini}
	if os.Geteuid() == 0 {
		args = []string{"-u", "nobody", ini}
	}
	cmd := exec.Command(path, args...)
	log := &pgtest.Log{}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	pgtest.Eventually(t, "pgbouncer listens", func() bool {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			conn.Close()
		}
		return err == nil
	}, log)
	return addr
}

// TestRightsWithdrawn revokes rights that the administrative login needs, and grants them again.
func TestRightsWithdrawn(t *testing.T) {
	t.Parallel() // the test mostly waits
	f := newFixture(t, nil)
	neighbour := f.another()
	pg := host(t, openDir(t), nil)
	pg.admit()
	f.behind("poor", "any", pg.addr())
	f.works(3*time.Second, func() grant { return f.to("poor", "alice") })
	pg.exec("alter role daypass nocreaterole")
	_, _, err := f.logon(f.to("poor", "newcomer"))
	f.refused(err, "58000", "run `daypass cluster check poor`")
	f.works(0, func() grant { return f.to("poor", "alice") }) // alice's session role needs no change
	pg.exec("alter role daypass createrole")
	f.works(0, func() grant { return f.to("poor", "newcomer") })

	pg.exec("alter role daypass nologin; select pg_terminate_backend(pid) from pg_stat_activity where usename = 'daypass'")
	pgtest.Eventually(t, "end of the administrative connections", func() bool {
		_, _, err := f.logon(f.to("poor", "alice"))
		return err != nil
	})
	_, _, err = f.logon(f.to("poor", "alice"))
	f.refused(err, "58000", `cluster "poor" refuses the administrative login`)
	neighbour()
	pg.exec("alter role daypass login")
	f.works(3*time.Second, func() grant { return f.to("poor", "alice") })
}

// TestChangedByHand: however someone has changed a session role by hand, the next logon repairs
// it.
func TestChangedByHand(t *testing.T) {
	t.Parallel() // the test mostly waits
	f := newFixture(t, nil)
	pg := host(t, openDir(t), nil)
	pg.admit()
	pg.exec("create role analysts; create role finance; grant analysts, finance to daypass with admin option; create role mallory login")
	f.behind("handy", "any", pg.addr())
	alice := func() grant { return f.to("handy", "alice", "analysts") }
	if conn := f.works(3*time.Second, alice); conn != nil {
		_ = conn.Close(t.Context())
	}
	for _, sql := range []string{
		`alter role "IAM:alice:analysts" nologin`,
		`alter role "IAM:alice:analysts" password 'mine'`,
		`alter role "IAM:alice:analysts" password null`,
		`alter role "IAM:alice:analysts" valid until '2020-01-01'`,
		`alter role "IAM:alice:analysts" connection limit 0`,
		`alter role "IAM:alice:analysts" noinherit`,
		`alter role "IAM:alice:analysts" set role = 'mallory'`,
		`alter role "IAM:alice:analysts" set default_transaction_read_only = on`,
		`revoke alice from "IAM:alice:analysts"`,
		`revoke analysts from "IAM:alice:analysts"`,
		`grant finance to "IAM:alice:analysts"`,
		`drop role "IAM:alice:analysts"`,
		`drop role "IAM:alice:analysts"; drop role daypass_session_roles`,
		`alter role "IAM:alice:analysts" rename to gone`,
	} {
		pg.exec(sql)
		conn, _, err := f.logon(alice())
		if err != nil {
			t.Errorf("after %s: %v", sql, err)
			continue
		}
		got := value[string](t, conn, `select concat_ws(' ', session_user, current_user, pg_has_role('alice', 'usage'), pg_has_role('analysts', 'usage'),
			pg_has_role('finance', 'member'), current_setting('transaction_read_only'))`)
		if want := "IAM:alice:analysts IAM:alice:analysts t t f off"; got != want {
			t.Errorf("after %s: session is %q, want %q", sql, got, want)
		}
		_ = conn.Close(t.Context())
	}
}
