package handover_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/handover"
	"github.com/daypass/daypass/test/clustertest"
	"github.com/daypass/daypass/test/pgtest"
)

// TestFrozenSweep stops a sweep before each of its transactions, as if its process were frozen. In
// the meantime another server sweeps, and a session of the same session role begins and creates a
// table. When the first sweep goes on, it leaves the session and its table alone.
func TestFrozenSweep(t *testing.T) {
	pgtest.Ends(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		f := alone(t, s, "CREATEROLE")
		alice, makers := f.LentUser("alice", ""), f.LentGroup("makers")
		f.LendAlone(alice, makers)
		db := f.LabDatabase(makers)
		inside := pgtest.Connect(t, f.Superuser(db))
		need := dbuser.Need{User: alice, Groups: []string{makers}}
		stopped := 0
		for n := 1; ; n++ {
			if n > 40 {
				t.Fatal("no end of transactions")
			}
			role := f.Ensure(need)
			c := f.Logon(role, db)
			clustertest.Exec(t, c, fmt.Sprintf("create table lab.before%d (x int)", n))
			_ = c.Close(t.Context())
			f.NoSessions(role.Name)
			f.Run("alter role %s valid until '2020-01-01'", role.Name)

			frozen := f.Another()
			reached, wake := make(chan struct{}), make(chan struct{})
			count := 0
			clustertest.Before(frozen, func(sql string, _ *pgconn.PgConn) {
				if sql != "begin" {
					return
				}
				if count++; count == n {
					close(reached)
					<-wake
				}
			})
			done := make(chan struct{})
			go func() {
				defer close(done)
				_, _ = frozen.Sweep(t.Context(), handover.SweepOptions{Unused: time.Hour})
			}()
			select {
			case <-done:
				if stopped < 2 {
					t.Errorf("a sweep has %d transactions", stopped)
				}
				return
			case <-reached:
			}
			// If the frozen sweep holds the advisory lock for role changes, others wait until
			// PostgreSQL ends its transaction (idle_in_transaction_session_timeout).
			if clustertest.One(t, f.Super, "select count(*)::text from pg_locks where locktype = 'advisory' and granted") != "0" {
				close(wake)
				<-done
				f.SweepUntil(role.Name, time.Hour)
				continue
			}
			stopped++
			f.SweepUntil(role.Name, time.Hour)
			role = f.Ensure(need)
			c = f.Logon(role, db)
			clustertest.Exec(t, c, fmt.Sprintf("create table lab.during%d (x int)", n))
			close(wake)
			<-done
			clustertest.Exec(t, c, fmt.Sprintf("create table lab.after%d (x int)", n)) // its group's right
			for _, table := range []string{"during", "after"} {
				if got := clustertest.One(t, inside, "select tableowner from pg_tables where schemaname = 'lab' and tablename = $1", fmt.Sprint(table, n)); got != role.Name {
					t.Errorf("transaction %d: the table of a session now belongs to %s", n, got)
				}
			}
			if got := clustertest.One(t, inside, "select tableowner from pg_tables where schemaname = 'lab' and tablename = $1", fmt.Sprint("before", n)); got != alice {
				t.Errorf("transaction %d: what an ended session left belongs to %s", n, got)
			}
			_ = c.Close(t.Context())
			f.NoSessions(role.Name)
			f.SweepUntil(role.Name, time.Hour)
		}
	})
}
