package handover_test

import (
	"context"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/handover"
	"github.com/daypass/daypass/test/clustertest"
	"github.com/daypass/daypass/test/pgtest"
)

// TestNamesSwappedUnderAHandOver: the owner of two schemas swaps their names just before an object
// in one of them is handed over by name. No one else's object is handed over, and the next attempt
// hands over the right ones. Names and locks work the same in all versions.
func TestNamesSwappedUnderAHandOver(t *testing.T) {
	pgtest.Ends(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		for name, f := range map[string]*fixture{"plain": plain(t, s), "superuser": super(t, s)} {
			t.Run(name, func(t *testing.T) {
				f.T = t
				mallory, makers := f.LentUser("mallory", ""), f.LentGroup("makers")
				db := f.LabDatabase(makers)
				f.Run("grant create on database %s to %s", db, mallory)
				hers := f.Session(dbuser.Need{User: mallory, Database: db})
				clustertest.ExecAll(t, hers, "create schema one", "create schema two", "grant create, usage on schema one to "+pgtest.Quote(makers))
				root := pgtest.Connect(t, s.Superuser(db))
				clustertest.ExecAll(t, root, "create table two.t (secret text)", "create sequence two.s")

				role := f.Ensure(dbuser.Need{User: mallory, Groups: []string{makers}, Database: db})
				c := f.Logon(role, db)
				clustertest.ExecAll(t, c, "create table one.t (x int)", "create sequence one.s", "create table lab.locked (x int)")
				_ = c.Close(context.Background())
				f.NoSessions(role.Name)
				// Because an object is locked, everything is handed over object by object.
				clustertest.Exec(t, root, "begin")
				clustertest.Exec(t, root, "lock table lab.locked in access share mode")

				admin, swaps := f.Another(), 0
				clustertest.Before(admin, func(sql string, _ *pgconn.PgConn) {
					if strings.HasPrefix(sql, "alter table one.t owner") || strings.HasPrefix(sql, "alter sequence one.s owner") {
						swaps++
						clustertest.ExecAll(t, hers, "alter schema one rename to other", "alter schema two rename to one", "alter schema other rename to two")
					}
				})
				if _, err := admin.Sweep(t.Context(), handover.SweepOptions{}); err != nil {
					t.Fatal(err)
				}
				if swaps == 0 {
					t.Fatal("nothing was handed over by name")
				}
				clustertest.Exec(t, root, "rollback")
				owners := clustertest.One(t, root, `select string_agg(distinct pg_get_userbyid(c.relowner), ' ') from pg_class c join pg_namespace n on n.oid = c.relnamespace
					where nspname in ('one', 'two') and c.relkind in ('r', 'S') and (c.relname = 's' or c.relname = 't')
						and exists (select from pg_class t join pg_attribute a on a.attrelid = t.oid where t.relnamespace = n.oid and a.attname = 'secret')`)
				if owners != "postgres" {
					t.Errorf("the superuser's objects belong to %s", owners)
				}
				f.SweepUntil(role.Name, 0)
				if got := f.OwnedBy(role.Name); got != "0" {
					t.Errorf("the session role still owns %s objects", got)
				}
			})
		}
	})
}
