package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/daypass/daypass/internal/credential"
	"github.com/daypass/daypass/internal/gateway"
	"github.com/daypass/daypass/test/pgtest"
)

// TestStartingSessions: some people keep databases locked, and the logons that are given up there have as
// many places as they can get. There is still a place for anyone else.
func TestStartingSessions(t *testing.T) {
	now, over := context.WithCancel(t.Context())
	over()
	user := func(i int) string { return fmt.Sprintf("arn:aws:iam::1:user/u%d", i) }
	session := func(i int) string { return fmt.Sprintf("arn:aws:sts::1:assumed-role/people/s%d", i) }
	constant := func(s string) func(int) string { return func(int) string { return s } }
	database := func(i int) string { return fmt.Sprintf("db%d", i) }
	for _, row := range []struct {
		name                string
		database, principal func(int) string
		want                int
	}{
		{"one database", constant("hers"), user, 32},
		{"one principal", database, constant("arn:aws:iam::1:user/mallory"), 32},
		{"one person of an IAM role", database, constant(session(0)), 32},
		{"an IAM role whose session names are chosen", database, session, 48},
		{"two databases", func(i int) string { return database(i % 2) }, user, 43},
	} {
		take := gateway.Starting(64)
		n := 0
		for i := range 1000 {
			if give, _, err := take(now, row.database(i), row.principal(i)); err == nil {
				give()
				n++
			}
		}
		if n != row.want {
			t.Errorf("%s: %d of 64 places are taken, want %d", row.name, n, row.want)
		}
		if _, _, err := take(now, "dev", "arn:aws:iam::1:user/ana"); err != nil {
			t.Errorf("%s: a newcomer: %v", row.name, err)
		}
	}
}

// TestStartingIsExact makes random logons, and compares the places with the bounds.
func TestStartingIsExact(t *testing.T) {
	type logon struct {
		database, principal string
		give, leave         func()
		given               bool
	}
	const most = 16
	take := gateway.Starting(most)
	now, over := context.WithCancel(t.Context())
	over()
	random := rand.New(rand.NewPCG(1, 2))
	var logons []*logon
	for range 20000 {
		switch at := random.IntN(len(logons) + 2); {
		case at >= len(logons):
			l := &logon{database: fmt.Sprint("db", random.IntN(4)), principal: fmt.Sprint("arn:aws:iam::1:user/", random.IntN(4))}
			same := 0
			for _, of := range []func(*logon) string{func(l *logon) string { return l.database }, func(l *logon) string { return l.principal }} {
				n := 0
				for _, other := range logons {
					if of(other) == of(l) {
						n++
					}
				}
				same = max(same, n)
			}
			free := most - len(logons)
			var err error
			l.give, l.leave, err = take(now, l.database, l.principal)
			if want := free > 0 && same < free; (err == nil) != want {
				t.Fatalf("%d are free, and %d are of the same database or principal: %v", free, same, err)
			}
			if err == nil {
				logons = append(logons, l)
			}
		case random.IntN(4) == 0 && !logons[at].given:
			logons[at].given = true
			logons[at].give()
		default:
			logons[at].leave()
			logons = slices.Delete(logons, at, at+1)
		}
	}
}

// TestStartingInTurn: logons wait for those that are being served. Those that wait for logons that were
// given up are refused.
func TestStartingInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		take := gateway.Starting(4)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begin := func(database, principal string) (leave func()) {
			t.Helper()
			_, leave, err := take(ctx, database, principal)
			if err != nil {
				t.Fatal(err)
			}
			return leave
		}
		_, first := begin("dev", "a"), begin("dev", "b")
		var order []int
		for i := range 3 {
			go func() {
				leave := begin("dev", "c")
				order = append(order, i)
				leave()
			}()
			synctest.Wait()
		}
		if len(order) > 0 {
			t.Errorf("%v have begun while the database has as many places as are free", order)
		}
		first()
		synctest.Wait()
		if want := []int{0, 1, 2}; !slices.Equal(order, want) {
			t.Errorf("logons begin in the order %v, want %v", order, want)
		}

		give, leave, err := take(ctx, "dev", "d")
		if err != nil {
			t.Fatal(err)
		}
		result := make(chan error, 1)
		go func() {
			_, _, err := take(ctx, "dev", "e")
			result <- err
		}()
		synctest.Wait()
		give() // but "a" may still begin
		synctest.Wait()
		select {
		case err := <-result:
			t.Errorf("refused although a session is about to begin: %v", err)
		default:
		}
		leave()
		synctest.Wait()
		if err := <-result; err != nil {
			t.Errorf("after the end of the logon that was given up: %v", err)
		}
		began := time.Now()
		if _, _, err := take(ctx, "dev", "f"); err == nil || time.Since(began) != time.Second {
			t.Errorf("take = %v after %v, want an error when its time is over", err, time.Since(began))
		}
	})
}

// TestLockedDatabaseWithoutLimits: as TestUnfinishedLogons, without session_limits.
func TestLockedDatabaseWithoutLimits(t *testing.T) {
	pgtest.Ends(t, func(t *testing.T, pg *pgtest.Server) {
		t.Parallel()
		f := newFixture(t, func(c *gateway.Config) { c.Limits.LogonTimeout = 1500 * time.Millisecond })
		f.server.StartAtMost(8)
		cluster := f.real(pg)
		mallory, db := pg.Login(t, "mallory", "CREATEDB"), pg.Name("hers")
		owner := pgtest.Connect(t, pg.ConnString(mallory, "postgres"))
		do := func(statements ...string) {
			t.Helper()
			for _, sql := range statements {
				if _, err := owner.Exec(t.Context(), sql); err != nil {
					t.Fatalf("%s: %v", sql, err)
				}
			}
		}
		do("create database "+db, "begin", "alter database "+db+" rename to "+db+"_2")
		super := pgtest.Connect(t, pg.Superuser("postgres"))
		waiting := func() int {
			return value[int](t, super, "select count(*) from pg_locks where not granted and locktype = 'object' and classid = 'pg_database'::regclass and objid = (select oid from pg_database where datname = $1)", db)
		}
		logons := func(n int) (states []string) {
			var group sync.WaitGroup
			var mu sync.Mutex
			for i := range n {
				g := f.grant(mallory.Name)
				g.Principal = fmt.Sprintf("arn:aws:iam::123456789012:user/mallory%d", i%3)
				group.Go(func() {
					_, err := f.try(g.LogonName(), f.mint(g), db)
					mu.Lock()
					defer mu.Unlock()
					states = append(states, stateOf(err))
				})
			}
			group.Wait()
			slices.Sort(states)
			return states
		}
		pgtest.Eventually(t, "logons that are refused at once", func() bool {
			states := logons(10)
			n := waiting()
			if n > 4 {
				t.Fatalf("logons ended with %v, and %d processes wait; want 4 at most", states, n)
			}
			return n == 4 && slices.Contains(states, "53300")
		})
		if logons(10); waiting() != 4 {
			t.Errorf("after more logons %d processes wait, want 4", waiting())
		}
		g := f.grant(mallory.Name)
		pgtest.Eventually(t, "the refusal", func() bool {
			var refused *pgconn.PgError
			_, err := f.try(g.LogonName(), f.mint(g), db)
			return errors.As(err, &refused) && refused.Code == "53300" && strings.Contains(refused.Message, "is starting too many sessions that do not begin")
		})
		works := func(g credential.Grant, database string) func() bool {
			return func() bool {
				conn, err := f.try(g.LogonName(), f.mint(g), database)
				if err != nil {
					return false
				}
				_ = conn.Close(t.Context())
				return true
			}
		}
		pgtest.Eventually(t, "a logon of someone else", works(f.grant(pg.Name("bob")), cluster.Database))
		if n := waiting(); n != 4 {
			t.Errorf("%d processes wait, want 4 still", n)
		}
		do("rollback")
		pgtest.Eventually(t, "places that are free again", works(g, db))
	})
}
