package dbuser_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/test/pgtest"
)

// TestDatabaseThatRefusesTheLogin: what session roles own in a database that does not
// let the administrative login in stays there, without a line for each of them and
// without asking again and again, until it does.
func TestDatabaseThatRefusesTheLogin(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		f := alone(t, s, "CREATEROLE")
		var ahead atomic.Int64
		f.admin = f.another(func(c *dbuser.Config) {
			c.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
		})
		makers := f.group("makers")
		db := f.database(makers)
		var roles []dbuser.SessionRole
		for range 3 {
			alice := f.user("alice", "")
			f.exec("grant connect on database %s to %s", db, alice)
			if f.Major() >= 16 {
				f.exec("grant %s, %s to %s with admin true, inherit false, set false", alice, makers, f.login.Name)
			}
			role := f.ensure(dbuser.Need{User: alice, Groups: []string{makers}})
			c := f.logon(role, db)
			run(t, c, "create table lab."+alice+" (x int)")
			_ = c.Close(context.Background())
			roles = append(roles, role)
		}
		f.exec("revoke connect on database %s from public", db)
		for _, r := range roles {
			f.noSessions(r.Name)
			f.admin.SessionEnded(r.Name, db, nil)
		}
		f.admin.Wait()
		if strings.Contains(f.log.String(), "WARN") {
			t.Errorf("at the sessions' end: %s", f.log)
		}
		for range 3 {
			report, err := f.admin.Sweep(t.Context(), dbuser.SweepOptions{})
			if err != nil || len(report.Kept) != len(roles) {
				t.Fatalf("Sweep = %+v, %v, want all kept", report, err)
			}
			for _, k := range report.Kept {
				if k.Database != db || !strings.Contains(k.Reason, "cluster check") {
					t.Errorf("kept %+v", k)
				}
			}
		}
		if n := strings.Count(f.Log(t), "permission denied for database"); n != 1 {
			t.Errorf("the database was asked %d times", n)
		}
		f.exec("grant connect on database %s to %s", db, f.login.Name)
		ahead.Store(int64(2 * time.Minute))
		if report, err := f.admin.Sweep(t.Context(), dbuser.SweepOptions{}); err != nil || len(report.Kept) > 0 || len(report.HandedOver) != len(roles) {
			t.Errorf("after the GRANT: %+v, %v", report, err)
		}
	})
}
