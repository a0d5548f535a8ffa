package handover_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/test/clustertest"
	"github.com/daypass/daypass/test/pgtest"
)

// TestABackendIsEndedWhileObjectsAreHandedOver: a backend that ignores its end is terminated while
// the objects of other roles are being handed over, however long that takes.
func TestABackendIsEndedWhileObjectsAreHandedOver(t *testing.T) {
	f := plain(t, pgtest.Start(t))
	group := f.LentGroup("analysts")
	db := f.LabDatabase(group)
	rebel := f.LentUser("rebel", "")
	role := f.Ensure(dbuser.Need{User: rebel})
	c := f.Logon(role, db)
	b := backend(t, c)
	rebelling := make(chan struct{})
	go func() {
		defer close(rebelling)
		_, _ = c.PgConn().Exec(context.Background(), "do $$ begin loop begin perform pg_sleep(60); exception when query_canceled then null; end; end loop; end $$").ReadAll()
	}()
	var leavers []dbuser.SessionRole
	for i := range 10 {
		leaver := f.Ensure(dbuser.Need{User: f.LentUser("leaver", ""), Groups: []string{group}})
		s := f.Logon(leaver, db)
		clustertest.Exec(t, s, fmt.Sprintf("create table lab.left%d (x int)", i))
		_ = s.Close(t.Context())
		f.NoSessions(leaver.Name)
		leavers = append(leavers, leaver)
	}
	var mu sync.Mutex // guards ran
	var ran []string
	var ended atomic.Bool
	clustertest.Before(f.Admin, func(sql string, _ *pgconn.PgConn) {
		mu.Lock()
		ran = append(ran, sql)
		mu.Unlock()
		if strings.HasPrefix(sql, "reassign") {
			if ended.CompareAndSwap(false, true) {
				f.Admin.SessionEnded(role.Name, &b)
			}
			time.Sleep(100 * time.Millisecond) // the way to the server is slow
		}
	})
	for _, leaver := range leavers {
		f.Admin.SessionEnded(leaver.Name, nil)
	}
	<-rebelling
	f.Admin.Wait()
	mu.Lock()
	defer mu.Unlock()
	terminated := slices.IndexFunc(ran, func(sql string) bool { return strings.Contains(sql, "pg_terminate_backend") })
	last := 0
	for i, sql := range ran {
		if strings.HasPrefix(sql, "reassign") {
			last = i
		}
	}
	if terminated < 0 || terminated > last {
		t.Errorf("the backend was terminated by statement %d, and the last object was handed over by %d of %d", terminated, last, len(ran))
	}
}

// TestASessionThatEndsMeanwhile: a session ends while the clean-up after an earlier session of the
// same role is running. Its objects are handed over too.
func TestASessionThatEndsMeanwhile(t *testing.T) {
	f := plain(t, pgtest.Start(t))
	group := f.LentGroup("analysts")
	db := f.LabDatabase(group)
	role := f.Ensure(dbuser.Need{User: f.LentUser("alice", ""), Groups: []string{group}})
	leaver := f.Ensure(dbuser.Need{User: f.LentUser("leaver", ""), Groups: []string{group}})
	s := f.Logon(leaver, db)
	clustertest.Exec(t, s, "create table lab.left_behind (x int)")
	_ = s.Close(t.Context())
	f.NoSessions(leaver.Name)
	var again atomic.Bool
	clustertest.Before(f.Admin, func(sql string, _ *pgconn.PgConn) {
		if strings.HasPrefix(sql, "reassign") && again.CompareAndSwap(false, true) {
			f.Exec(t, db, "create table lab.later (x int); alter table lab.later owner to "+pgtest.Quote(role.Name))
			f.Admin.SessionEnded(role.Name, nil)
		}
	})
	f.Admin.SessionEnded(role.Name, nil)
	f.Admin.SessionEnded(leaver.Name, nil)
	f.Admin.Wait()
	if n, of := f.OwnedBy(role.Name), f.Memberships(role.Name); !again.Load() || n != "0" || of != dbuser.MarkerRole {
		t.Errorf("after a session that ended meanwhile its role owns %s objects, and is a member of %s", n, of)
	}
}
