package adminconn_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/daypass/daypass/internal/adminconn"
	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/test/clustertest"
	"github.com/daypass/daypass/test/pgtest"
)

// TestLaneHeldByAnOutsider: anyone who can log on to the database of the administrative login
// can take and keep the advisory lock for role changes. First logons must not wait for it for
// ever.
func TestLaneHeldByAnOutsider(t *testing.T) {
	for name, hold := range map[string]string{
		"exclusive": "select pg_advisory_lock($1)",
		"shared":    "select pg_advisory_lock_shared($1)",
	} {
		t.Run(name, func(t *testing.T) {
			f := plain(t, pgtest.Start(t))
			holder := pgtest.Connect(t, f.ConnString(f.Login(t, "holder", ""), "postgres"))
			if _, err := holder.Exec(context.Background(), hold, adminconn.LaneKey); err != nil {
				t.Fatal(err)
			}
			for _, user := range []string{"kim", "lee"} {
				if _, err := f.Admin.Ensure(context.Background(), dbuser.Need{User: f.Name(user), AutoCreate: true}); err != nil {
					t.Fatal(err)
				}
			}
			// Only once: the second logon does not wait for a login that was found to hold
			// the lock.
			if log := f.Log.String(); strings.Count(log, "another login holds the lock") != 1 || !strings.Contains(log, "holder") {
				t.Errorf("the log does not say once who holds the lock: %s", log)
			}
		})
	}
}

// locked makes the holder of a session role change a setting of the role, and then keep its
// row locked by changing it again in a transaction that stays open.
func (f *fixture) locked(r dbuser.SessionRole) (unlock func()) {
	f.T.Helper()
	c := f.Logon(r, "postgres")
	clustertest.Exec(f.T, c, "set role none")
	clustertest.Exec(f.T, c, "alter role current_user set search_path = trap")
	clustertest.Exec(f.T, c, "begin")
	clustertest.Exec(f.T, c, "alter role current_user set search_path = another_trap")
	return func() { clustertest.Exec(f.T, c, "rollback") }
}

// TestHolderLocksTheRole: while a holder locks the row of a setting, the setting cannot be
// removed and logons are refused. When the lock is gone, the setting is removed. It is not
// mistaken for a setting that may not be copied. Row locks are the same in all versions.
func TestHolderLocksTheRole(t *testing.T) {
	pgtest.Ends(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		f := plain(t, s)
		n := dbuser.Need{User: f.LentUser("alice", "")}
		impatient := f.Another(func(c *dbuser.Config) { c.Timeout = 500 * time.Millisecond })
		unlock := f.locked(f.Ensure(n))
		for range 2 {
			if role, err := impatient.Ensure(t.Context(), n); err == nil {
				t.Fatalf("Ensure = %q with a setting of the holder's", role.Name)
			}
		}
		unlock()
		var role dbuser.SessionRole
		err := errors.New("not tried")
		for deadline := time.Now().Add(20 * time.Second); err != nil && time.Now().Before(deadline); {
			role, err = impatient.Ensure(t.Context(), n)
		}
		if err != nil {
			t.Fatal(err)
		}
		if path := clustertest.One(t, f.Logon(role, "postgres"), "show search_path"); strings.Contains(path, "trap") {
			t.Errorf("search_path = %s: a setting of the holder's reached the next session", path)
		}
		if log := f.Log.String(); strings.Contains(log, "left out") {
			t.Errorf("a setting that was locked is left out:\n%s", log)
		}
	})
}

// TestHoldersKeepTheLane: logons that wait for rows that holders keep locked do not keep
// other logons out of the lane.
func TestHoldersKeepTheLane(t *testing.T) {
	f := plain(t, pgtest.Start(t))
	alice := f.LentUser("alice", "")
	admin := f.Another(func(c *dbuser.Config) { c.Timeout = 3 * time.Second })
	var waiting sync.WaitGroup
	defer waiting.Wait()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	needs := []dbuser.Need{{User: alice}}
	for range 40 { // one user may have a session role for each set of groups
		needs = append(needs, dbuser.Need{User: alice, Groups: []string{f.LentGroup("group")}})
	}
	for _, n := range needs {
		defer f.locked(f.Ensure(n))()
		waiting.Go(func() {
			for ctx.Err() == nil {
				if _, err := admin.Ensure(ctx, n); err == nil {
					t.Error("a locked role was put right")
				}
			}
		})
	}
	// Lock timeouts use up all the time. If a change were not moved to the end of the queue
	// after a timeout, or if all changes of one user were in the queue, these would keep the lane
	// to themselves.
	for range 5 {
		if _, err := admin.Ensure(ctx, dbuser.Need{User: f.Name("kim"), AutoCreate: true}); err != nil {
			t.Error(err)
		}
	}
	cancel()
}

// TestFrozenGatewayLosesTheLane: a gateway that is frozen while it changes a role does not keep
// the others from changing roles for longer than a logon waits.
func TestFrozenGatewayLosesTheLane(t *testing.T) {
	f := plain(t, pgtest.Start(t))
	frozen := f.Another(func(*dbuser.Config) {})
	entered, wake, over := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		over <- frozen.Pool.InLane(context.Background(), func(context.Context, *adminconn.Conn) ([]adminconn.Step, error) {
			close(entered)
			<-wake
			return nil, nil
		})
	}()
	<-entered
	began := time.Now()
	if _, err := f.Admin.Ensure(t.Context(), dbuser.Need{User: f.Name("kim"), AutoCreate: true}); err != nil {
		t.Errorf("beside a frozen gateway: %v after %v", err, time.Since(began))
	}
	close(wake)
	if err := <-over; !adminconn.ConnectionLost(err) {
		t.Errorf("the frozen gateway's change: %v, want that its connection was lost", err)
	}
}
