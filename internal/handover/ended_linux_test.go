package handover_test

import (
	"context"
	"fmt"
	"strconv"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/handover"
	"github.com/daypass/daypass/test/clustertest"
)

func backend(t *testing.T, c *pgx.Conn) dbuser.Backend {
	t.Helper()
	pid, err := strconv.ParseUint(clustertest.One(t, c, "select pg_backend_pid()::text"), 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	return dbuser.Backend{PID: uint32(pid), Address: c.PgConn().Conn().RemoteAddr().String()}
}

// TestBackendThatOutlastsItsEnd: PostgreSQL checks for signals between steps, and a holder can
// run a step that takes hours, such as an XPath expression. A terminated backend that does not
// exit keeps no rights. The test stops the process instead.
func TestBackendThatOutlastsItsEnd(t *testing.T) {
	attacks(t, func(t *testing.T, a *attack, c *pgx.Conn) {
		a.leak(c, "lab")
		b := backend(t, c)
		if err := syscall.Kill(int(b.PID), syscall.SIGSTOP); err != nil {
			t.Fatal("stopping the server's process: ", err)
		}
		goOn := func() { _ = syscall.Kill(int(b.PID), syscall.SIGCONT) }
		t.Cleanup(goOn)
		a.Admin.SessionRevoked(a.role.Name, &b)
		a.stripped(a.role.Name)
		if a.reads("lab") {
			t.Error("the group's right outlives the session")
		}
		goOn()
		a.NoSessions(a.role.Name)
		next := a.Session(dbuser.Need{User: a.alice, Groups: []string{a.group}})
		if got := clustertest.One(t, next, "select pg_has_role($1, 'member')::text", a.group); got != "true" {
			t.Error("the next logon is without the group")
		}
		if _, err := a.Admin.Sweep(t.Context(), handover.SweepOptions{}); err != nil {
			t.Fatal(err)
		}
		if got := clustertest.One(t, next, "select pg_has_role($1, 'member')::text", a.group); got != "true" {
			t.Error("a session that lives has lost its group")
		}
	})
}

// TestTendStripsRolesOfBackendsThatOutlast: if a terminated backend does not exit, other servers
// treat it as a session. So when another server sweeps, the one that terminated the backend strips
// the role.
func TestTendStripsRolesOfBackendsThatOutlast(t *testing.T) {
	attacks(t, func(t *testing.T, a *attack, c *pgx.Conn) {
		a.leak(c, "lab")
		b := backend(t, c)
		var oid uint32
		if err := a.Super.QueryRow(t.Context(), "select oid from pg_roles where rolname = $1", a.role.Name).Scan(&oid); err != nil {
			t.Fatal(err)
		}
		a.Admin.Outlasts(b, oid)
		// Another session of the role has been at the other server, and has ended.
		if report, err := a.Another().Sweep(t.Context(), handover.SweepOptions{}); err != nil || report.InUse == 0 {
			t.Fatalf("the other server's sweep = %+v, %v", report, err)
		}
		a.Admin.Tend(t.Context())
		a.stripped(a.role.Name)
		if a.reads("lab") {
			t.Error("the group's right outlives the session")
		}
	})
}

// TestBackendOfARoleThatSteppedAside: the backend's session role has been retired, and therefore
// renamed, which a holder can cause. The backend is terminated anyway.
func TestBackendOfARoleThatSteppedAside(t *testing.T) {
	attacks(t, func(t *testing.T, a *attack, c *pgx.Conn) {
		a.leak(c, "lab")
		b := backend(t, c)
		clustertest.Exec(t, c, "alter default privileges grant select on tables to public")
		a.Ensure(dbuser.Need{User: a.alice, Groups: []string{a.group}}) // retires the role
		aside := clustertest.One(t, c, "select session_user::text")
		if aside == a.role.Name {
			t.Fatal("the role did not step aside")
		}
		rebelling := make(chan struct{})
		go func() {
			defer close(rebelling)
			_, _ = c.PgConn().Exec(context.Background(), "do $$ begin loop begin perform pg_sleep(60); exception when query_canceled then null; end; end loop; end $$").ReadAll()
		}()
		a.Eventually("the query", func() bool {
			return clustertest.One(t, a.Super, fmt.Sprintf("select count(*)::text from pg_stat_activity where pid = %d and state = 'active'", b.PID)) == "1"
		})
		a.Admin.SessionRevoked(a.role.Name, &b)
		a.NoSessions(aside)
		<-rebelling
		if _, err := a.Admin.Sweep(t.Context(), handover.SweepOptions{}); err != nil {
			t.Fatal(err)
		}
		a.stripped(aside)
	})
}
