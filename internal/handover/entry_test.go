package handover_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/handover"
	"github.com/daypass/daypass/test/clustertest"
	"github.com/daypass/daypass/test/pgtest"
)

// TestDatabaseThatRefusesTheLogin: a database refuses the administrative login. Session roles keep
// their objects there until the database admits the login. The log does not get a line for each
// role, and the sweep does not try to connect again and again.
func TestDatabaseThatRefusesTheLogin(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		f := alone(t, s, "CREATEROLE")
		var ahead atomic.Int64
		f.Admin = f.Another(func(c *dbuser.Config) {
			c.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
		})
		makers := f.LentGroup("makers")
		db := f.LabDatabase(makers)
		var roles []dbuser.SessionRole
		for range 3 {
			alice := f.LentUser("alice", "")
			f.Run("grant connect on database %s to %s", db, alice)
			if f.Major() >= 16 {
				f.Run("grant %s, %s to %s with admin true, inherit false, set false", alice, makers, f.As.Name)
			}
			role := f.Ensure(dbuser.Need{User: alice, Groups: []string{makers}})
			c := f.Logon(role, db)
			clustertest.Exec(t, c, "create table lab."+alice+" (x int)")
			_ = c.Close(context.Background())
			roles = append(roles, role)
		}
		f.Run("revoke connect on database %s from public", db)
		for _, r := range roles {
			f.NoSessions(r.Name)
			f.Admin.SessionEnded(r.Name, nil)
		}
		f.Admin.Wait()
		if strings.Contains(f.Log.String(), "WARN") {
			t.Errorf("at the sessions' end: %s", f.Log)
		}
		for range 3 {
			report, err := f.Admin.Sweep(t.Context(), handover.SweepOptions{})
			if err != nil || len(report.Kept) != len(roles) {
				t.Fatalf("Sweep = %+v, %v, want all kept", report, err)
			}
			for _, k := range report.Kept {
				if k.Database != db || !strings.Contains(k.Reason, "cluster check") {
					t.Errorf("kept %+v", k)
				}
			}
		}
		if n := strings.Count(f.Server.Log(t), "permission denied for database"); n != 1 {
			t.Errorf("the database was asked %d times", n)
		}
		f.Run("grant connect on database %s to %s", db, f.As.Name)
		ahead.Store(int64(2 * time.Minute))
		if report, err := f.Admin.Sweep(t.Context(), handover.SweepOptions{}); err != nil || len(report.Kept) > 0 || len(report.HandedOver) != len(roles) {
			t.Errorf("after the GRANT: %+v, %v", report, err)
		}
	})
}

// TestLockedDatabase: the owner of a database keeps it locked. A connection to it would wait until that
// ends, in a process that no one ends before, so the clean-up makes none.
func TestLockedDatabase(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		f := alone(t, s, "CREATEROLE")
		mallory, makers := f.Login(t, "mallory", "CREATEDB"), f.LentGroup("makers")
		f.LendAlone(mallory.Name, makers)
		owner := pgtest.Connect(t, f.ConnString(mallory, "postgres"))
		clustertest.Exec(t, owner, "create database hers")
		role := f.Ensure(dbuser.Need{User: mallory.Name, Groups: []string{makers}, Database: "hers"})
		c := f.Logon(role, "hers")
		clustertest.ExecAll(t, c, "create schema mine", "create table mine.t (x int)")
		_ = c.Close(context.Background())
		f.NoSessions(role.Name)
		clustertest.ExecAll(t, owner, "begin", "alter database hers rename to other")
		for range 2 {
			report, err := f.Admin.Sweep(t.Context(), handover.SweepOptions{})
			if err != nil || len(report.Kept) != 1 || report.Kept[0].Database != "hers" || !strings.Contains(report.Kept[0].Reason, "locked") {
				t.Errorf("Sweep = %+v, %v, want a role that is kept because of the lock", report, err)
			}
		}
		if n := clustertest.One(t, f.Super, "select count(*)::text from pg_locks where not granted"); n != "0" {
			t.Errorf("%s processes wait for the lock", n)
		}
		if got := f.Memberships(role.Name); got != dbuser.MarkerRole {
			t.Errorf("the session role is still a member of %s", got)
		}
		clustertest.Exec(t, owner, "rollback")
		if report := f.SweepUntil(role.Name, 0); len(report.HandedOver) != 1 {
			t.Errorf("after the rollback: %+v", report)
		}
	})
}
