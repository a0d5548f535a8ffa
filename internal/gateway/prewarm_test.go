package gateway_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/daypass/daypass/internal/gateway"
	"github.com/daypass/daypass/internal/pgtest"
)

// prewarming is a gateway that starts up to most sessions ahead.
func prewarming(t *testing.T, most int) (*fixture, *pgtest.Server, *gateway.Cluster) {
	f, pg := newFixture(t, nil), pgtest.Start(t)
	cluster := *f.real(pg)
	cluster.Prewarm = most
	return f, pg, f.add(&cluster)
}

// pids are the server's processes of a user's session roles, those of the
// sessions that are open and those of spares.
func pids(t testing.TB, pg *pgtest.Server, user string) map[int]bool {
	t.Helper()
	conn, err := pgx.Connect(context.Background(), pg.Superuser("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	rows, err := conn.Query(context.Background(),
		"SELECT pid FROM pg_stat_activity WHERE usename LIKE 'IAM:' || $1 || '%'", user)
	if err != nil {
		t.Fatal(err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[int])
	if err != nil {
		t.Fatal(err)
	}
	found := map[int]bool{}
	for _, pid := range list {
		found[pid] = true
	}
	return found
}

// spare logs on and off until a session waits for the next logon, and returns its
// process.
func spare(t testing.TB, f *fixture, pg *pgtest.Server, g grant) (pid int) {
	t.Helper()
	eventually(t, "a session is started ahead", func() bool {
		conn := f.connect(g, "")
		own := value[int](t, conn, "SELECT pg_backend_pid()")
		_ = conn.Close(context.Background())
		for range 100 {
			if left := pids(t, pg, g.DBUser); len(left) == 1 && !left[own] {
				for pid = range left {
				}
				return true
			}
			time.Sleep(5 * time.Millisecond)
		}
		return false
	})
	return pid
}

func TestPrewarmedSessionIsUsedOnce(t *testing.T) {
	f, pg, _ := prewarming(t, 2)
	g := f.grant(pg.Name("ahead"))
	waiting := spare(t, f, pg, g)
	first, second := f.connect(g, ""), f.connect(g, "")
	if got := value[int](t, first, "SELECT pg_backend_pid()"); got != waiting {
		t.Errorf("the logon got process %d, want %d, which waited", got, waiting)
	}
	if got := value[int](t, second, "SELECT pg_backend_pid()"); got == waiting {
		t.Error("two logons got the same session")
	}
	if !strings.Contains(f.log.String(), "prewarmed=true") {
		t.Error("the log does not tell which session was started ahead")
	}
}

// TestPrewarmDoubts: after each of these the session that waits is not what a new
// one would be, and is not used.
func TestPrewarmDoubts(t *testing.T) {
	f, pg, _ := prewarming(t, 20)
	for _, row := range []struct {
		name     string
		change   func(t *testing.T, user string, pid int)
		settings []string // of the logon
		query    string   // what the logon has to see
		want     string
	}{
		{"setting of the user", func(t *testing.T, user string, _ int) {
			pg.Exec(t, "postgres", "ALTER ROLE "+user+" SET work_mem = '7MB'")
		}, nil, "SHOW work_mem", "7MB"},
		{"setting of the session role", func(t *testing.T, user string, _ int) {
			pg.Exec(t, "postgres", `ALTER ROLE "IAM:`+user+`" SET work_mem = '9MB'`)
		}, nil, "SHOW work_mem", "4MB"},
		{"session role made anew", func(t *testing.T, user string, _ int) {
			pg.Exec(t, "postgres", `DROP ROLE "IAM:`+user+`"`)
		}, nil, "SELECT current_user::text", ""},
		{"ended by the server", func(t *testing.T, user string, pid int) {
			pg.Exec(t, "postgres", fmt.Sprintf("SELECT pg_terminate_backend(%d)", pid))
			eventually(t, "the process ends", func() bool { return !pids(t, pg, user)[pid] })
		}, nil, "SELECT 'alive'", "alive"},
		{"another start-up parameter", func(*testing.T, string, int) {},
			[]string{"application_name", "another"}, "SHOW application_name", "another"},
	} {
		t.Run(row.name, func(t *testing.T) {
			g := f.grant(pg.Name("doubt"))
			waiting := spare(t, f, pg, g)
			row.change(t, g.DBUser, waiting)
			conn := f.connect(g, "", row.settings...)
			if pid := value[int](t, conn, "SELECT pg_backend_pid()"); pid == waiting {
				t.Errorf("the session that waited was used")
			}
			if got := value[string](t, conn, row.query); row.want != "" && got != row.want {
				t.Errorf("%s = %q, want %q", row.query, got, row.want)
			}
			_ = conn.Close(context.Background())
		})
	}
}

// TestPrewarmIsBounded: no more than the cluster's number wait, and none is
// started for another database or by a cluster that does not ask for it.
func TestPrewarmIsBounded(t *testing.T) {
	f, pg, cluster := prewarming(t, 2)
	g := f.grant(pg.Name("many"))
	for range 3 {
		var open []*pgx.Conn
		for range 4 {
			open = append(open, f.connect(g, ""))
		}
		for _, conn := range open {
			_ = conn.Close(context.Background())
		}
	}
	// One where each was ready before the next logon, which then never found none.
	eventually(t, "one or two are left", func() bool { n := len(pids(t, pg, g.DBUser)); return n == 1 || n == 2 })
	other := *cluster
	other.Prewarm = 0
	f.add(&other)
	quiet := f.grant(pg.Name("none"))
	_ = f.connect(quiet, "").Close(context.Background())
	eventually(t, "none is left", func() bool { return len(pids(t, pg, quiet.DBUser)) == 0 })
}

// TestPrewarmMakesRoom: what waits is never the reason why a logon finds no
// connection left.
func TestPrewarmMakesRoom(t *testing.T) {
	f, pg, cluster := prewarming(t, 1)
	a, b := f.grant(pg.Name("first")), f.grant(pg.Name("second"))
	pg.Exec(t, "postgres", "ALTER DATABASE "+cluster.Database+" CONNECTION LIMIT 2")
	spare(t, f, pg, a)
	for range 2 {
		if got := value[int](t, f.connect(b, ""), "SELECT 1"); got != 1 {
			t.Errorf("got %d", got)
		}
	}
	if left := pids(t, pg, a.DBUser); len(left) != 0 {
		t.Errorf("processes %v still wait", left)
	}
}

func TestShutdownLeavesNoSpare(t *testing.T) {
	f, pg, _ := prewarming(t, 3)
	g := f.grant(pg.Name("over"))
	spare(t, f, pg, g)
	if err := f.server.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
	if left := pids(t, pg, g.DBUser); len(left) != 0 {
		t.Errorf("processes %v are left", left)
	}
}
