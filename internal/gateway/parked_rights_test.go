package gateway_test

import (
	"context"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/gateway"
	"github.com/daypass/daypass/internal/handover"
	"github.com/daypass/daypass/internal/session"
	"github.com/daypass/daypass/test/pgtest"
)

// lendSuperusers lets the cluster lend superusers.
func (f *fixture) lendSuperusers(pg *pgtest.Server, cluster *gateway.Cluster) {
	f.t.Helper()
	config, err := pgx.ParseConfig(pg.ConnString(pg.Login(f.t, "root", "SUPERUSER"), "postgres"))
	if err != nil {
		f.t.Fatal(err)
	}
	admin := handover.New(dbuser.Config{Cluster: "examplecluster", Conn: config, Key: [32]byte{4, 5, 6}, AllowSuperusers: true})
	f.t.Cleanup(admin.Close)
	other := *cluster
	other.Admin = admin
	f.add(&other)
}

// TestMembersOfSuperusersAreNeverParked: a member of a superuser becomes one with SET ROLE.
func TestMembersOfSuperusersAreNeverParked(t *testing.T) {
	pg := pgtest.Start(t)
	f, cluster := parking(t, pg, session.Parking{Max: 20}, nil)
	f.lendSuperusers(pg, cluster)
	g := f.grant(pg.Login(t, "deputy", "NOINHERIT").Name)
	pg.Exec(t, "postgres", "GRANT "+pg.Login(t, "boss", "SUPERUSER").Name+" TO "+g.DBUser)
	f.known(g)
	if n := f.leaves(f.connect(g, "")); n != 0 {
		t.Error("the session of a superuser's member is parked")
	}
}

// TestLibraryOfAnExtensionThatIsGone: after an extension was rolled back or dropped, its library
// stays loaded in the process.
func TestLibraryOfAnExtensionThatIsGone(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, pg *pgtest.Server) {
		t.Parallel()
		f, cluster := parking(t, pg, session.Parking{Max: 20}, nil)
		g := f.grant(pg.Name("maker"))
		f.known(g)
		group := pg.Group(t, "creators")
		pg.Exec(t, cluster.Database, "GRANT CREATE ON DATABASE "+pgtest.Quote(cluster.Database)+" TO "+group+
			"; GRANT ALL ON SCHEMA public TO PUBLIC; GRANT "+group+" TO "+g.DBUser)
		f.known(g)
		conn := f.connect(g, "")
		run(t, conn, "BEGIN; CREATE EXTENSION isn; SELECT isn_weak(true); ROLLBACK")
		if f.leaves(conn) != 0 {
			pg.Exec(t, cluster.Database, "CREATE EXTENSION isn")
			t.Errorf("parked; isn_weak() of the next session is %v", value[bool](t, f.connect(g, ""), "SELECT isn_weak()"))
		}
	})
}

// TestCreateRoleIsNeverParked: before PostgreSQL 16 a user with CREATEROLE can join any other role, load
// a library with its rights, and leave it again before the reset.
func TestCreateRoleIsNeverParked(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, pg *pgtest.Server) {
		t.Parallel()
		if pg.Major() >= 16 {
			t.Skip("there it is a member of the roles that it administers")
		}
		f, cluster := parking(t, pg, session.Parking{Max: 20}, nil)
		f.lendSuperusers(pg, cluster)
		g := f.grant(pg.Login(t, "deputy", "CREATEROLE").Name)
		f.known(g)
		group := pg.Group(t, "creators")
		pg.Exec(t, cluster.Database, "GRANT CREATE ON DATABASE "+pgtest.Quote(cluster.Database)+" TO "+group+"; GRANT ALL ON SCHEMA public TO PUBLIC")
		conn := f.connect(g, "")
		run(t, conn, "GRANT "+group+" TO "+g.DBUser)
		run(t, conn, "BEGIN; CREATE EXTENSION isn; SELECT isn_weak(true); ROLLBACK")
		run(t, conn, "REVOKE "+group+" FROM "+g.DBUser)
		if f.leaves(conn) != 0 {
			pg.Exec(t, cluster.Database, "CREATE EXTENSION isn")
			t.Errorf("parked; isn_weak() of the next session is %v", value[bool](t, f.connect(g, ""), "SELECT isn_weak()"))
		}
	})
}

// TestPreparedTransactionOfTheUser: a prepared transaction belongs to the role that prepared it,
// which is seldom the session role.
func TestPreparedTransactionOfTheUser(t *testing.T) {
	pg := pgtest.Start(t).StartAlone(t, map[string]string{"max_prepared_transactions": "5"})
	f, cluster := parking(t, pg, session.Parking{Max: 20}, nil)
	pg.Exec(t, cluster.Database, "CREATE TABLE shared (x int); GRANT ALL ON shared TO PUBLIC")
	g := f.grant(pg.Name("preparer"))
	f.known(g)
	conn := f.connect(g, "")
	run(t, conn, "BEGIN; INSERT INTO shared VALUES (1); PREPARE TRANSACTION 'theirs'")
	defer pg.Exec(t, cluster.Database, "ROLLBACK PREPARED 'theirs'")
	if f.leaves(conn) != 0 {
		t.Error("parked with a prepared transaction")
	}
}

// TestStateThatIsNotShown: a session that may run functions whose effect lasts as long as the process, and
// which nothing shows to everyone, is not parked.
func TestStateThatIsNotShown(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, pg *pgtest.Server) {
		t.Parallel()
		backup := "pg_backup_start(text, boolean)"
		if pg.Major() < 15 {
			backup = "pg_start_backup(text, boolean, boolean)"
		}
		for function, call := range map[string]string{
			"pg_replication_origin_session_setup(text)": "pg_replication_origin_session_setup('{origin}')",
			backup: strings.NewReplacer("text", "'mine'", "boolean, boolean", "true, false", "boolean", "true").Replace(backup),
		} {
			f, cluster := parking(t, pg, session.Parking{Max: 20}, nil)
			group := pg.Group(t, "replicators")
			origin := pg.Name("origin")
			pg.Exec(t, cluster.Database, "GRANT EXECUTE ON FUNCTION "+function+" TO "+group+"; SELECT pg_replication_origin_create('"+origin+"')")
			g := f.grant(pg.Name("replicator"), group)
			f.known(g)
			conn := f.connect(g, "")
			if _, err := conn.Exec(context.Background(), "SELECT "+strings.ReplaceAll(call, "{origin}", origin)); err != nil {
				if pg.Major() < 14 {
					continue // for superusers only
				}
				t.Fatal(err)
			}
			if f.leaves(conn) != 0 {
				t.Errorf("parked after %s", call)
				f.server.KillWhere(func(*gateway.Session) bool { return true })
			}
			super := pgtest.Connect(t, pg.Superuser(cluster.Database))
			pgtest.Eventually(t, "nothing uses the origin", func() bool {
				_, err := super.Exec(context.Background(), "SELECT pg_replication_origin_drop('"+origin+"')")
				return err == nil
			})
		}
	})
}

// dialling passes the cluster's new upstream connections through wrap.
func (f *fixture) dialling(cluster *gateway.Cluster, wrap func(net.Conn) net.Conn) {
	other, config := *cluster, *cluster.Upstream
	dial := config.DialFunc
	config.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return wrap(conn), nil
	}
	other.Upstream = &config
	f.add(&other)
}

// TestSettingThatCameBetween: the holder gives the session role a setting after the gateway has
// read the role's settings, and removes it once the process has started with it, before or after
// the reset. RESET ALL would restore that setting.
func TestSettingThatCameBetween(t *testing.T) {
	pg := pgtest.Start(t)
	for _, where := range []string{"ALTER ROLE {role}", "ALTER ROLE {role} IN DATABASE {database}", "ALTER DATABASE {database}", "ALTER ROLE ALL IN DATABASE {database}"} {
		for _, early := range []bool{true, false} {
			f, cluster := parking(t, pg, session.Parking{Max: 20}, nil)
			g := f.grant(pg.Name("between"))
			alter := strings.NewReplacer("{role}", `"IAM:`+g.DBUser+`"`, "{database}", pgtest.Quote(cluster.Database)).Replace(where)
			var evil atomic.Bool
			f.dialling(cluster, func(conn net.Conn) net.Conn {
				if evil.Load() {
					pg.Exec(t, "postgres", alter+" SET search_path = evil")
				}
				return conn
			})
			f.known(g)
			evil.Store(true)
			conn := f.connect(g, "")
			evil.Store(false)
			undo := func() { pg.Exec(t, "postgres", alter+" RESET search_path") }
			if early {
				undo()
			}
			pid := pidOf(t, conn)
			f.leaves(conn)
			if !early {
				undo()
			}
			again := f.connect(g, "")
			if got := value[string](t, again, "SHOW search_path"); strings.Contains(got, "evil") {
				t.Errorf("%q, removed before the reset: %t: search_path = %s, in process %d after %d", where, early, got, pidOf(t, again), pid)
			}
		}
	}
}
