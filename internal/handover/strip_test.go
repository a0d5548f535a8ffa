package handover_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/handover"
	"github.com/daypass/daypass/test/clustertest"
	"github.com/daypass/daypass/test/pgtest"
)

// attack is a holder whose session leaves an object behind that lends a group's rights to others.
type attack struct {
	*fixture
	alice, group, db string
	role             dbuser.SessionRole
	outsider         *pgx.Conn // a superuser in db
}

// attacks runs a test with a plain administrative login and with a superuser, on each version.
// The session has created a function that reads a table of the group's.
func attacks(t *testing.T, test func(t *testing.T, a *attack, c *pgx.Conn)) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		for name, f := range map[string]*fixture{"plain": plain(t, s), "superuser": super(t, s)} {
			t.Run(name, func(t *testing.T) {
				f.T = t
				a := &attack{fixture: f, alice: f.LentUser("alice", ""), group: f.LentGroup("analysts")}
				a.db = f.LabDatabase(a.group)
				f.Exec(t, a.db, "create table lab.payments (x int); grant select on lab.payments to "+pgtest.Quote(a.group)+
					"; grant usage on schema lab to public; create schema mine authorization "+pgtest.Quote(a.alice))
				a.outsider = pgtest.Connect(t, f.Superuser(a.db))
				a.role = f.Ensure(dbuser.Need{User: a.alice, Groups: []string{a.group}})
				test(t, a, f.Logon(a.role, a.db))
			})
		}
	})
}

// leak creates a function that lends the group's right to everyone.
func (a *attack) leak(c *pgx.Conn, schema string) {
	a.T.Helper()
	clustertest.Exec(a.T, c, "create function "+schema+".leak() returns bigint language sql security definer as 'select count(*) from lab.payments'")
}

// reads reports whether bob can read the table through the function.
func (a *attack) reads(schema string) bool {
	a.T.Helper()
	bob := a.Name("bob")
	a.Run("create role %s", bob)
	defer a.Run("drop role %s", bob)
	clustertest.Exec(a.T, a.outsider, "begin")
	defer clustertest.Exec(a.T, a.outsider, "rollback")
	clustertest.Exec(a.T, a.outsider, "grant usage on schema "+schema+" to public")
	clustertest.Exec(a.T, a.outsider, "set local role "+pgtest.Quote(bob))
	var n int
	return a.outsider.QueryRow(context.Background(), "select "+schema+".leak()").Scan(&n) == nil
}

// ends closes the session and reports that, as a gateway does.
func (a *attack) ends(c *pgx.Conn) {
	a.T.Helper()
	_ = c.Close(context.Background())
	a.NoSessions(a.role.Name)
	a.Admin.SessionEnded(a.role.Name, nil)
}

// stripped waits until the marker is the role's only membership.
func (a *attack) stripped(role string) {
	a.T.Helper()
	a.Eventually("strip of "+role, func() bool { return a.Memberships(role) == dbuser.MarkerRole })
	a.Eventually("nologin of "+role, func() bool {
		return clustertest.One(a.T, a.Super, "select rolcanlogin::text from pg_roles where rolname = $1", role) == "false"
	})
}

// TestRightsEndWithTheSession: the rights end even if something keeps the objects from being
// handed over, and the next logon restores them.
func TestRightsEndWithTheSession(t *testing.T) {
	for name, block := range map[string]func(a *attack, c *pgx.Conn) (schema string){
		"nothing": func(a *attack, c *pgx.Conn) string {
			a.leak(c, "lab")
			return "lab"
		},
		"a schema of hers, open to the session role only": func(a *attack, c *pgx.Conn) string {
			clustertest.Exec(a.T, c, "grant create, usage on schema mine to "+pgtest.Quote(a.role.Name))
			clustertest.Exec(a.T, c, "revoke create on schema mine from "+pgtest.Quote(a.alice))
			a.leak(c, "mine")
			return "mine"
		},
		"a schema of hers, closed again": func(a *attack, c *pgx.Conn) string {
			clustertest.Exec(a.T, c, "grant create, usage on schema mine to "+pgtest.Quote(a.role.Name))
			a.leak(c, "mine")
			clustertest.Exec(a.T, c, "revoke create on schema mine from "+pgtest.Quote(a.role.Name)+", "+pgtest.Quote(a.alice))
			return "mine"
		},
		"a schema that only a superuser can open": func(a *attack, c *pgx.Conn) string {
			a.Exec(a.T, a.db, "create schema shut; grant create, usage on schema shut to "+pgtest.Quote(a.group))
			a.leak(c, "shut")
			a.Exec(a.T, a.db, "revoke create on schema shut from "+pgtest.Quote(a.group))
			return "shut"
		},
		"a lock": func(a *attack, c *pgx.Conn) string {
			clustertest.Exec(a.T, c, "create view lab.v as select * from lab.payments")
			a.leak(c, "lab")
			reader := pgtest.Connect(a.T, a.Superuser(a.db))
			clustertest.Exec(a.T, reader, "begin; lock table lab.v in access share mode")
			return "lab"
		},
		"settings of the database": func(a *attack, c *pgx.Conn) string {
			a.leak(c, "lab")
			a.Run("alter database %s set statement_timeout = '1ms'", a.db)
			a.Run("alter database %s set lock_timeout = '1ms'", a.db)
			a.Run("alter database %s set default_transaction_read_only = on", a.db)
			return "lab"
		},
		"a second parent": func(a *attack, c *pgx.Conn) string {
			a.leak(c, "lab")
			a.Run("grant %s to %s", a.LentUser("other", ""), a.role.Name)
			return "lab"
		},
		"retirement": func(a *attack, c *pgx.Conn) string {
			a.leak(c, "lab")
			clustertest.Exec(a.T, c, "alter default privileges grant select on tables to public")
			a.Ensure(dbuser.Need{User: a.alice, Groups: []string{a.group}}) // retires the role
			a.role.Name = clustertest.One(a.T, c, "select session_user::text")
			return "lab"
		},
		"large objects": func(a *attack, c *pgx.Conn) string {
			a.leak(c, "lab")
			clustertest.Exec(a.T, c, "select count(lo_create(0)) from generate_series(1, 500)")
			return "lab"
		},
		"no CONNECT": func(a *attack, c *pgx.Conn) string {
			a.leak(c, "lab")
			a.Run("revoke connect on database %s from public", a.db)
			return "lab"
		},
	} {
		t.Run(name, func(t *testing.T) {
			attacks(t, func(t *testing.T, a *attack, c *pgx.Conn) {
				name := a.role.Name
				schema := block(a, c)
				if !a.reads(schema) {
					t.Fatal("nothing leaks while the session lasts: nothing to end")
				}
				a.ends(c)
				if a.Major() >= 16 && a.As.Name == pgtest.AdminName && strings.HasPrefix(t.Name(), "TestRightsEndWithTheSession/a_second_parent") {
					// The login may not revoke a superuser's grant.
					a.Eventually("strip", func() bool { return !strings.Contains(a.Memberships(a.role.Name), a.group) })
				} else {
					a.stripped(a.role.Name)
				}
				if a.reads(schema) {
					t.Error("the group's right outlives the session")
				}
				a.Run("alter database %s reset all", a.db) // else a statement_timeout of 1 ms would cancel the queries below
				next := a.Session(dbuser.Need{User: a.alice, Groups: []string{a.group}, Database: map[bool]string{true: a.db, false: "postgres"}[!strings.Contains(t.Name(), "CONNECT")]})
				if got := clustertest.One(t, next, "select pg_has_role($1, 'member')::text", a.group); got != "true" {
					t.Error("the next logon is without the group")
				}
				if got := clustertest.One(t, next, "select session_user::text"); got != name {
					t.Errorf("session_user = %s, want %s", got, name)
				}
			})
		})
	}
}

// TestStripOfTheRevoked: a role whose credential was revoked may not log in, and loses its
// rights at the end of its last session although it owns nothing. The next logon restores
// everything, and the old revocation does not strip the role again.
func TestStripOfTheRevoked(t *testing.T) {
	attacks(t, func(t *testing.T, a *attack, c *pgx.Conn) {
		other := a.Logon(a.role, a.db) // a session of another valid credential
		clustertest.Exec(t, c, "alter role current_user password 'mine'")
		_ = c.Close(t.Context())
		a.Admin.SessionRevoked(a.role.Name, nil)
		shut := func() bool {
			return clustertest.One(t, a.Super, "select rolcanlogin::text from pg_roles where rolname = $1", a.role.Name) == "false"
		}
		a.Eventually("nologin", shut)
		if !strings.Contains(a.Memberships(a.role.Name), a.group) {
			t.Error("the rights of a session that goes on were taken away")
		}
		_ = other.Close(t.Context())
		a.NoSessions(a.role.Name)
		a.Admin.SessionEnded(a.role.Name, nil)
		a.stripped(a.role.Name)
		n := dbuser.Need{User: a.alice, Groups: []string{a.group}}
		again := a.Session(n)
		_ = again.Close(t.Context())
		a.NoSessions(a.role.Name)
		a.Admin.SessionEnded(a.role.Name, nil)
		a.Admin.Wait()
		if got := a.Memberships(a.role.Name); !strings.Contains(got, a.group) {
			t.Errorf("a role that owns nothing was stripped for a revocation that is dealt with: %q", got)
		}
	})
}

// TestNothingToDoForThoseWhoOwnNothing: the end of a session of a role that owns
// nothing changes nothing, so the next logon finds everything as it was.
func TestNothingToDoForThoseWhoOwnNothing(t *testing.T) {
	attacks(t, func(t *testing.T, a *attack, c *pgx.Conn) {
		clustertest.Before(a.Admin, func(sql string, _ *pgconn.PgConn) {
			if sql != "commit" && !strings.HasPrefix(sql, "begin") && !strings.HasPrefix(sql, "set local") && !strings.HasPrefix(sql, "select pg_") {
				t.Errorf("a statement at the end of a session that leaves nothing behind: %s", sql)
			}
		})
		a.ends(c)
		a.Admin.Wait()
		if left, err := a.Admin.TestOnlyPlan(t.Context(), dbuser.Need{User: a.alice, Groups: []string{a.group}}); err != nil || len(left) > 0 {
			t.Errorf("left to do: %q, %v", left, err)
		}
	})
}

// TestStripOfTheExpired: a role that no logon has used before its VALID UNTIL passed is stripped,
// even if it owns nothing.
func TestStripOfTheExpired(t *testing.T) {
	attacks(t, func(t *testing.T, a *attack, c *pgx.Conn) {
		a.ends(c)
		a.Run("alter role %s valid until '2020-01-01'", a.role.Name)
		if _, err := a.Another().Sweep(t.Context(), handover.SweepOptions{}); err != nil {
			t.Fatal(err)
		}
		a.stripped(a.role.Name)
	})
}

// TestASessionBeginsDuringAStrip: a session begins at another gateway before each statement of a
// strip, and has its rights afterwards. A logon of this process would wait instead. One version below
// 16 and one from 16 on are enough.
func TestASessionBeginsDuringAStrip(t *testing.T) {
	pgtest.Ends(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		f := alone(t, s, "CREATEROLE")
		alice, group := f.LentUser("alice", ""), f.LentGroup("analysts")
		f.LendAlone(alice, group)
		db := f.LabDatabase(group)
		n := dbuser.Need{User: alice, Groups: []string{group}}
		for at := 1; ; at++ {
			role := f.Ensure(n)
			c := f.Logon(role, db)
			clustertest.Exec(t, c, fmt.Sprintf("create table lab.t%d (x int)", at))
			_ = c.Close(t.Context())
			f.NoSessions(role.Name)
			sweeper, count, committing := f.Another(), 0, false
			var began *pgx.Conn
			clustertest.Before(sweeper, func(sql string, _ *pgconn.PgConn) {
				if began != nil && !committing && strings.HasPrefix(sql, "grant ") && strings.Contains(sql, role.Name) {
					t.Errorf("a session that began before statement %d was without its group: %s", at, sql)
				}
				if count++; count == at {
					began, _ = f.TryLogon(role, db) // refused once it is NOLOGIN
					committing = sql == "commit"    // after the last look: it gets its group back
				}
			})
			if _, err := sweeper.Sweep(t.Context(), handover.SweepOptions{}); err != nil {
				t.Fatal(err)
			}
			if count < at {
				return
			}
			if began == nil {
				continue
			}
			if got := clustertest.One(t, began, "select pg_has_role($1, 'member')::text", group); got != "true" {
				t.Errorf("a session that began before statement %d has lost its group: %s", at, f.Memberships(role.Name))
			}
			_ = began.Close(t.Context())
			f.NoSessions(role.Name)
		}
	})
}

// TestASessionBeginsAfterTheLastLook: a session begins after the strip has looked for sessions and before it
// commits. It gets its group back, unless a credential of the role was revoked.
func TestASessionBeginsAfterTheLastLook(t *testing.T) {
	pgtest.Ends(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		f := alone(t, s, "CREATEROLE") // no other test sweeps
		group := f.LentGroup("analysts")
		f.LendAlone(group)
		db := f.LabDatabase(group)
		for name, revoked := range map[string]bool{"plain": false, "revoked": true} {
			alice := f.LentUser("alice", "")
			f.LendAlone(alice)
			role := f.Ensure(dbuser.Need{User: alice, Groups: []string{group}})
			c := f.Logon(role, db)
			clustertest.Exec(t, c, "create table lab."+name+" (x int)")
			_ = c.Close(t.Context())
			f.NoSessions(role.Name)
			f.Admin.Wait() // it looks again after a logon, and would grant the group to the session that begins
			looks := newLateAnswer("from pg_stat_activity a join pg_roles r on r.oid = a.usesysid")
			strips := f.Another(looks.option)
			looks.armed.Store(true)
			if revoked {
				strips.SessionRevoked(role.Name, nil)
			} else {
				strips.SessionEnded(role.Name, nil)
			}
			<-looks.answered
			began := f.Logon(role, db) // the server has not seen the commit yet
			close(looks.goOn)
			state := func() string {
				return clustertest.One(t, began, "select pg_has_role($1, 'member') || ' ' || rolcanlogin from pg_roles where rolname = session_user", group)
			}
			if !revoked {
				f.Eventually("a role that is granted again", func() bool { return strings.Contains(f.Log.String(), "granted again") && state() == "true true" })
				_ = began.Close(t.Context())
				continue
			}
			f.Eventually("a role that is stripped", func() bool { return state() == "false false" })
			if _, err := strips.Sweep(t.Context(), handover.SweepOptions{}); err != nil || state() != "false false" {
				t.Errorf("after a revocation and a sweep, %v, a session that began meanwhile has its group, and the role may log in: %s", err, state())
			}
			_ = began.Close(t.Context())
		}
	})
}

// TestALogonKeepsItsRoleFromBeingStripped: in this process a role is not stripped between Ensure
// and the moment when the server shows the session, and a logon waits for a strip that has
// begun.
func TestALogonKeepsItsRoleFromBeingStripped(t *testing.T) {
	attacks(t, func(t *testing.T, a *attack, c *pgx.Conn) {
		a.leak(c, "lab")
		_ = c.Close(t.Context())
		a.NoSessions(a.role.Name)
		n := dbuser.Need{User: a.alice, Groups: []string{a.group}}
		role, err := a.Admin.Ensure(t.Context(), n) // a logon that takes its time
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.Admin.Sweep(t.Context(), handover.SweepOptions{}); err != nil {
			t.Fatal(err)
		}
		if got := a.Memberships(role.Name); !strings.Contains(got, a.group) {
			t.Errorf("the role was stripped under a logon: %q", got)
		}
		inside, goOn := make(chan struct{}), make(chan struct{})
		a.Admin.Opened(role.Name)
		a.Admin.Wait()
		clustertest.Before(a.Admin, func(sql string, _ *pgconn.PgConn) {
			if strings.HasPrefix(sql, "revoke") && strings.Contains(sql, role.Name) {
				select {
				case <-inside:
				default:
					close(inside)
					<-goOn
				}
			}
		})
		swept := make(chan error, 1)
		go func() {
			_, err := a.Admin.Sweep(context.Background(), handover.SweepOptions{})
			swept <- err
		}()
		<-inside
		ensured := make(chan error, 1)
		go func() {
			_, err := a.Admin.Ensure(context.Background(), n)
			ensured <- err
		}()
		select {
		case err := <-ensured:
			t.Errorf("a logon did not wait for the strip: %v", err)
		case <-time.After(50 * time.Millisecond): // it is waiting, or has not begun
		}
		close(goOn)
		if err := errors.Join(<-swept, <-ensured); err != nil {
			t.Error(err)
		}
		if left, err := a.Admin.TestOnlyPlan(t.Context(), n); err != nil || len(left) > 0 {
			t.Errorf("left to do after the logon: %q, %v", left, err)
		}
	})
}

// TestASubscriptionIsNoSession: a subscription's worker runs as its owner for any length of
// time. It does not keep the rights of a session role alive.
func TestASubscriptionIsNoSession(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		if s.Major() < 16 {
			return // subscriptions belong to superusers
		}
		for _, options := range []string{"CREATEROLE", "SUPERUSER"} {
			own := s.StartAlone(t, map[string]string{"wal_level": "logical"})
			f := &fixture{&clustertest.Cluster{Server: own, T: t, Log: &pgtest.Log{}, As: own.Login(t, "daypass", options), Super: pgtest.Connect(t, own.Superuser("postgres"))}}
			f.Admin = f.Another()
			alice, group := f.LentUser("alice", ""), f.LentGroup("analysts")
			f.LendAlone(alice, group)
			role := f.Ensure(dbuser.Need{User: alice, Groups: []string{group}})
			f.Run("create publication p")
			f.Run("select pg_create_logical_replication_slot('s', 'pgoutput')")
			db := f.Database(t)
			c := pgtest.Connect(t, f.Superuser(db))
			clustertest.Exec(t, c, "create subscription s connection '"+f.Superuser("postgres")+"' publication p with (enabled = false, connect = false, slot_name = 's', password_required = false)")
			clustertest.Exec(t, c, "grant create on database "+pgtest.Quote(db)+" to "+pgtest.Quote(role.Name))
			clustertest.Exec(t, c, "alter subscription s owner to "+pgtest.Quote(role.Name))
			clustertest.Exec(t, c, "alter subscription s enable")
			f.Eventually("the worker runs", func() bool {
				return clustertest.One(t, f.Super, "select count(*)::text from pg_stat_activity where usename = $1", role.Name) == "1"
			})
			f.Admin.SessionEnded(role.Name, nil)
			f.Eventually("strip", func() bool { return f.Memberships(role.Name) == dbuser.MarkerRole })
			// Meanwhile the role's objects are being handed over.
			for _, sql := range []string{"alter subscription s disable", "alter subscription s set (slot_name = none)", "drop subscription s"} {
				f.Eventually(sql, func() bool {
					_, err := c.Exec(t.Context(), sql)
					return err == nil
				})
			}
		}
	})
}
