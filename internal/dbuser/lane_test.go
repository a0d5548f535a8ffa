package dbuser_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/pgtest"
)

// TestLaneHeldByAnOutsider: whoever may log on to the database of the
// administrative login may take the lock of the role DDL and keep it, for
// everybody's first logons to wait for.
func TestLaneHeldByAnOutsider(t *testing.T) {
	for name, hold := range map[string]string{
		"exclusive": "select pg_advisory_lock($1)",
		"shared":    "select pg_advisory_lock_shared($1)",
	} {
		t.Run(name, func(t *testing.T) {
			f := plain(t, pgtest.Start(t))
			holder := pgtest.Connect(t, f.ConnString(f.Login(t, "holder", ""), "postgres"))
			if _, err := holder.Exec(context.Background(), hold, dbuser.LaneKey); err != nil {
				t.Fatal(err)
			}
			for i, user := range []string{"kim", "lee"} {
				began := time.Now()
				if _, err := f.admin.Ensure(context.Background(), dbuser.Need{User: f.Name(user), AutoCreate: true}); err != nil {
					t.Fatal(err)
				}
				if took := time.Since(began); i > 0 && took > 900*time.Millisecond {
					t.Errorf("the second logon waited %v for somebody who had been found out", took)
				}
			}
			if log := f.log.String(); !strings.Contains(log, "another login holds the lock") || !strings.Contains(log, "holder") {
				t.Errorf("the log says nothing of who holds the lock: %s", log)
			}
		})
	}
}
