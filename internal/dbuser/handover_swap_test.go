package dbuser_test

import (
	"context"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/test/pgtest"
)

// TestNamesSwappedUnderAHandOver: the owner of two schemas gives one the name of the
// other just before an object in it is handed over by name. Nothing of anybody else's
// changes hands, and the objects do at the next attempt.
func TestNamesSwappedUnderAHandOver(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		for name, f := range map[string]*fixture{"plain": plain(t, s), "superuser": super(t, s)} {
			t.Run(name, func(t *testing.T) {
				f.t = t
				mallory, makers := f.user("mallory", ""), f.group("makers")
				db := f.database(makers)
				f.exec("grant create on database %s to %s", db, mallory)
				hers := f.session(dbuser.Need{User: mallory, Database: db})
				all(t, hers, "create schema one", "create schema two", "grant create, usage on schema one to "+pgtest.Quote(makers))
				root := pgtest.Connect(t, s.Superuser(db))
				all(t, root, "create table two.t (secret text)", "create sequence two.s")

				role := f.ensure(dbuser.Need{User: mallory, Groups: []string{makers}, Database: db})
				c := f.logon(role, db)
				all(t, c, "create table one.t (x int)", "create sequence one.s", "create table lab.locked (x int)")
				_ = c.Close(context.Background())
				f.noSessions(role.Name)
				// What is locked has everything handed over object by object.
				run(t, root, "begin")
				run(t, root, "lock table lab.locked in access share mode")

				admin, swaps := f.another(), 0
				admin.SetBefore(func(sql string, _ *pgconn.PgConn) {
					if strings.HasPrefix(sql, "alter table one.t owner") || strings.HasPrefix(sql, "alter sequence one.s owner") {
						swaps++
						all(t, hers, "alter schema one rename to other", "alter schema two rename to one", "alter schema other rename to two")
					}
				})
				if _, err := admin.Sweep(t.Context(), dbuser.SweepOptions{}); err != nil {
					t.Fatal(err)
				}
				if swaps == 0 {
					t.Fatal("nothing was handed over by name")
				}
				run(t, root, "rollback")
				owners := one(t, root, `select string_agg(distinct pg_get_userbyid(c.relowner), ' ') from pg_class c join pg_namespace n on n.oid = c.relnamespace
					where nspname in ('one', 'two') and c.relkind in ('r', 'S') and (c.relname = 's' or c.relname = 't')
						and exists (select from pg_class t join pg_attribute a on a.attrelid = t.oid where t.relnamespace = n.oid and a.attname = 'secret')`)
				if owners != "postgres" {
					t.Errorf("the superuser's objects belong to %s", owners)
				}
				f.sweepUntil(role.Name, 0)
				if got := f.ownedBy(role.Name); got != "0" {
					t.Errorf("the session role still owns %s objects", got)
				}
			})
		}
	})
}
