package gateway_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/daypass/daypass/internal/credential"
	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/gateway"
	"github.com/daypass/daypass/internal/handover"
	"github.com/daypass/daypass/internal/postgres"
	"github.com/daypass/daypass/test/pgtest"
)

// otherGateway is an Admin that lets another gateway strip the session role once, at one of two
// moments during a logon.
type otherGateway struct {
	gateway.Admin
	afterEnsure, beforeOpened func(role string)
	ensure, opened            sync.Once
}

func (o *otherGateway) Ensure(ctx context.Context, n dbuser.Need) (dbuser.SessionRole, error) {
	role, err := o.Admin.Ensure(ctx, n)
	if err == nil && o.afterEnsure != nil {
		o.ensure.Do(func() { o.afterEnsure(role.Name) })
	}
	return role, err
}

func (o *otherGateway) Opened(role string) {
	if o.beforeOpened != nil {
		o.opened.Do(func() { o.beforeOpened(role) })
	}
	o.Admin.Opened(role)
}

// TestStrippedDuringALogon: another gateway strips the session role during a logon. The session
// still gets its rights: at once, or a moment later if the server had already let it in. One
// version below 16 and one from 16 on are enough: what differs is that memberships have options.
func TestStrippedDuringALogon(t *testing.T) {
	pgtest.Ends(t, func(t *testing.T, pg *pgtest.Server) {
		t.Parallel()
		super := pgtest.Connect(t, pg.Superuser("postgres"))
		strip := func(sql string) func(role string) {
			return func(role string) {
				rows, _ := super.Query(context.Background(), `select format('revoke %I from %I', g.rolname, r.rolname) from pg_auth_members m
					join pg_roles g on g.oid = m.roleid join pg_roles r on r.oid = m.member where r.rolname = $1 and g.rolname <> $2`, role, dbuser.MarkerRole)
				all := []string{sql + pgtest.Quote(role) + " nologin"}
				if sql == "" {
					all = nil
				}
				for rows.Next() {
					var revoke string
					if err := rows.Scan(&revoke); err != nil {
						t.Error(err)
					}
					all = append(all, revoke)
				}
				for _, sql := range all {
					if _, err := super.Exec(context.Background(), sql); err != nil {
						t.Errorf("%s: %v", sql, err)
					}
				}
			}
		}
		for name, tt := range map[string]struct {
			admin  *otherGateway
			groups bool
			later  bool
		}{
			"before the server looks":                  {admin: &otherGateway{afterEnsure: strip("alter role ")}},
			"before the server looks, with groups":     {admin: &otherGateway{afterEnsure: strip("alter role ")}, groups: true},
			"after the server has looked":              {admin: &otherGateway{afterEnsure: strip("")}},
			"after the session has begun, with groups": {admin: &otherGateway{beforeOpened: strip("alter role ")}, groups: true, later: true},
		} {
			t.Run(name, func(t *testing.T) {
				f := newFixture(t, nil)
				cluster := f.real(pg)
				tt.admin.Admin, cluster.Admin = cluster.Admin, tt.admin
				g := f.grant(pg.Name("alice"))
				group := ""
				if tt.groups {
					group = pg.Group(t, "analysts")
					g.DBGroups = []string{group}
				}
				conn := f.connect(g, "")
				if !tt.groups {
					if got := value[string](t, conn, "SELECT current_user::text"); got != g.DBUser {
						t.Errorf("the session works as %q, want %q", got, g.DBUser)
					}
					return
				}
				has := func() bool { return value[bool](t, conn, "SELECT pg_has_role($1, 'member')", group) }
				if tt.later {
					pgtest.Eventually(t, "the group is granted again", has)
				} else if !has() {
					t.Error("the session is without its group")
				}
			})
		}
	})
}

// TestOptionsOfTheClient: the start-up option that makes a session begin as its user is sent in
// addition to the client's own options, for all kinds of names.
func TestOptionsOfTheClient(t *testing.T) {
	pg := pgtest.Start(t)
	f := newFixture(t, nil)
	f.real(pg)
	for _, user := range []string{"alice", `al \ice\`} {
		g := f.grant(pg.Name(user))
		if got := value[string](t, f.connect(g, ""), "SELECT current_user::text"); got != g.DBUser {
			t.Errorf("current_user = %q, want %q", got, g.DBUser)
		}
		conn := f.connect(g, "", "options", "--work_mem=7MB")
		if got := value[string](t, conn, "SELECT current_user || ' ' || current_setting('work_mem')"); got != g.DBUser+" 7MB" {
			t.Errorf("with options of the client's: %q", got)
		}
	}
}

// TestSessionsOfAStandby: the primary does not show the sessions of a standby. Such sessions still
// keep their rights until they end, whatever their session role owns.
func TestSessionsOfAStandby(t *testing.T) {
	f := newFixture(t, nil)
	primary, standby := pair(t)
	primary.exec("create role analysts; grant analysts to daypass with admin option; create schema lab; grant create, usage on schema lab to analysts")
	cluster := f.behind("replica", "standby", primary.addr(), standby.addr())
	conn, _, err := f.logon(f.to("replica", "alice", "analysts"))
	if err != nil {
		t.Fatal(err)
	}
	const role = "IAM:alice:analysts"
	primary.exec(`set role "IAM:alice:analysts"; create table lab.t (x int)`)
	primary.exec(`alter role "IAM:alice:analysts" valid until '2020-01-01'`)
	admin := cluster.Admin.(*handover.Admin)
	memberships := func() int {
		c := pgtest.Connect(t, primary.ConnString(postgres.Superuser, "postgres"))
		defer c.Close(t.Context())
		return value[int](t, c, "select count(*) from pg_auth_members m join pg_roles r on r.oid = m.member where r.rolname = $1", role)
	}
	admin.SessionEnded(role, nil)
	if report, err := admin.Sweep(t.Context(), handover.SweepOptions{Unused: time.Hour}); err != nil || report.InUse != 1 || len(report.Stripped) > 0 {
		t.Errorf("Sweep = %+v, %v", report, err)
	}
	if got := memberships(); got != 3 {
		t.Errorf("the session role of a session on the standby has %d memberships, want 3", got)
	}
	_ = conn.Close(t.Context())
	pgtest.Eventually(t, "strip after the session's end", func() bool { return memberships() == 1 })
}

// TestRevocationReachesTheSessionRole: after a revocation, a password that the holder gave the
// session role does not work, and the role's rights are gone although it owns nothing. Another
// credential for the same user and groups restores them. One version below 16 and one from 16 on
// are enough.
func TestRevocationReachesTheSessionRole(t *testing.T) {
	pgtest.Ends(t, func(t *testing.T, pg *pgtest.Server) {
		t.Parallel()
		registry := &revocations{}
		f := newFixture(t, func(c *gateway.Config) { c.Revoked = registry.revoked })
		f.real(pg)
		group := pg.Group(t, "analysts")
		user := pg.Name("alice")
		bad, good := f.grant(user, group), f.grant(user, group)
		for name, work := range map[string]string{"idle": "", "busy": "do $$ begin perform pg_sleep(600); end $$"} {
			conn := f.connect(bad, "")
			role := value[string](t, conn, "SELECT session_user::text")
			if _, err := conn.Exec(t.Context(), "alter role current_user password 'mine'"); err != nil {
				t.Fatal(err)
			}
			worked := make(chan struct{})
			go func() {
				defer close(worked)
				if work != "" {
					_, _ = conn.Exec(context.Background(), work)
				}
			}()
			registry.set(func(g *credential.Grant) bool { return g.ID == bad.ID }, nil)
			f.server.Recheck()
			super := pgtest.Connect(t, pg.Superuser("postgres"))
			pgtest.Eventually(t, name+": the session role is stripped", func() bool {
				return value[int](t, super, "select count(*) from pg_auth_members m join pg_roles r on r.oid = m.member where r.rolname = $1", role) == 1 &&
					!value[bool](t, super, "select rolcanlogin from pg_roles where rolname = $1", role)
			})
			if !value[bool](t, f.connect(good, ""), "SELECT pg_has_role($1, 'member')", group) {
				t.Errorf("%s: the holder of another credential is without the group", name)
			}
			registry.set(nil, nil)
			f.server.KillWhere(func(*gateway.Session) bool { return true })
			pgtest.Eventually(t, "no session is left", func() bool { return len(f.server.Sessions()) == 0 })
			<-worked
		}
	})
}
