package gateway_test

import (
	"context"
	"sync"
	"testing"

	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/gateway"
	"github.com/daypass/daypass/internal/pgtest"
)

// otherGateway is an Admin whose session roles another gateway strips once, at one
// of two moments of a logon.
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

// TestStrippedDuringALogon: another gateway takes the rights of the session role
// away in the middle of a logon. The session has them all the same, at once or, when
// the server had let it in already, a moment later.
func TestStrippedDuringALogon(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, pg *pgtest.Server) {
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
					eventually(t, "the group is granted again", has)
				} else if !has() {
					t.Error("the session is without its group")
				}
			})
		}
	})
}

// TestOptionsOfTheClient: the option that has a session begin as its user takes its
// place beside the client's own, for names of all kinds.
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
