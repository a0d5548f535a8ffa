package dbuser_test

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/daypass/daypass/internal/adminconn"
	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/handover"
	"github.com/daypass/daypass/test/clustertest"
	"github.com/daypass/daypass/test/pgtest"
)

// TestHolderChangesTheRole does everything to a role that PostgreSQL lets a role do to itself,
// and checks that the next logon undoes it.
func TestHolderChangesTheRole(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		f := plain(t, s)
		alice, group := f.LentUser("alice", ""), f.LentGroup("analysts")
		for _, n := range []dbuser.Need{{User: alice, Database: "postgres"}, {User: alice, Groups: []string{group}, Database: "postgres"}} {
			role := f.Ensure(n)
			c := f.Logon(role, "postgres")
			clustertest.Exec(t, c, "set role none")
			clustertest.Exec(t, c, "alter role current_user set work_mem = '1GB'")
			clustertest.Exec(t, c, "alter role current_user in database postgres set search_path = trap")
			clustertest.Exec(t, c, "alter role current_user set role = none")
			clustertest.Exec(t, c, "alter role current_user in database postgres set role = none")
			clustertest.Exec(t, c, "alter role current_user password 'mine'")
			again := f.Ensure(n) // Ensure cannot see that the password differs
			if _, err := f.TryLogon(again, "postgres"); err == nil {
				t.Error("the holder's password is not in force: nothing to heal")
			}
			healed, err := f.Admin.Heal(t.Context(), n)
			if err != nil || healed != again {
				t.Fatalf("Heal = %q, %v", healed.Name, err)
			}
			c = f.Logon(healed, "postgres")
			want := alice
			if n.Groups != nil {
				want = role.Name
			}
			if got := clustertest.One(t, c, "select current_user::text"); got != want {
				t.Errorf("current_user = %s, want %s", got, want)
			}
			if got := clustertest.One(t, c, "show work_mem"); got == "1GB" {
				t.Error("a setting of the holder's reached the next session")
			}
			if got := clustertest.One(t, c, "show search_path"); strings.Contains(got, "trap") {
				t.Error("a setting for one database reached the next session")
			}
		}
	})
}

// TestSettingsAreCopied: a session has its user's settings, with those for its database before the
// others. Settings that only a superuser may set, and the user's role, are left out.
func TestSettingsAreCopied(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		f := plain(t, s)
		alice, group, db := f.LentUser("alice", "CONNECTION LIMIT 3"), f.LentGroup("analysts"), f.Database(t)
		f.Run("alter role %s set work_mem = '7MB'", alice)
		f.Run(`alter role %s set search_path = "$user", "Odd, ""name""", public, ''`, alice)
		f.Run("alter role %s set application_name = 'it''s \\ alice'", alice)
		f.Run("alter role %s set log_statement = 'all'", alice) // superuser only
		f.Run("alter role %s set role = %s", alice, group)
		f.Run("alter role %s in database %s set work_mem = '9MB'", alice, db)
		f.Run("alter role %s in database %s set statement_timeout = '77s'", alice, db)
		for _, n := range []dbuser.Need{{User: alice}, {User: alice, Groups: []string{group}}} {
			role := f.Ensure(n)
			in := func(n dbuser.Need, database string) dbuser.Need { n.Database = database; return n }
			show := func(c *pgx.Conn) string {
				return clustertest.One(t, c, `select concat_ws(' | ', current_setting('work_mem'), current_setting('search_path'),
					current_setting('statement_timeout'), current_user)`)
			}
			who := alice
			if n.Groups != nil {
				who = role.Name
			}
			path := `"$user", "Odd, ""name""", public, ""`
			if n.Groups != nil {
				path = strings.Replace(path, `"$user"`, alice, 1)
			}
			if got, want := show(f.Session(in(n, "postgres"))), "7MB | "+path+" | 0 | "+who; got != want {
				t.Errorf("settings in postgres = %s, want %s", got, want)
			}
			if got, want := show(f.Session(in(n, db))), "9MB | "+path+" | 77s | "+who; got != want {
				t.Errorf("settings in %s = %s, want %s", db, got, want)
			}
			if got := clustertest.One(t, f.Super, "select rolconnlimit::text from pg_roles where rolname = $1", role.Name); got != "3" {
				t.Errorf("connection limit = %s, want 3", got)
			}
			if left, err := f.Admin.TestOnlyPlan(t.Context(), in(n, db)); err != nil || len(left) > 0 {
				t.Errorf("left to do: %q, %v", left, err)
			}
			// Changes of the user's attributes take effect at the next logon.
			f.Run("alter role %s set work_mem = '8MB'", alice)
			f.Run("alter role %s in database %s reset statement_timeout", alice, db)
			if got, want := show(f.Session(in(n, db))), "9MB | "+path+" | 0 | "+who; got != want {
				t.Errorf("settings after a change = %s, want %s", got, want)
			}
			f.Run("alter role %s set work_mem = '7MB'", alice)
			f.Run("alter role %s in database %s set statement_timeout = '77s'", alice, db)
		}
		if n := strings.Count(f.Log.String(), "setting left out"); n != 1 || !strings.Contains(f.Log.String(), "log_statement") {
			t.Errorf("%d warnings, want one, of log_statement:\n%s", n, f.Log)
		}
	})
}

// TestSettingsThatStay: a setting that the login may not reset stays with its session role, and
// the next session uses another role.
func TestSettingsThatStay(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		f := plain(t, s)
		n := dbuser.Need{User: f.LentUser("alice", "")}
		role := f.Ensure(n)
		f.Run("alter role %s set log_statement = 'all'", role.Name) // superusers only
		if got := clustertest.One(t, f.Logon(f.Ensure(n), "postgres"), "show log_statement"); got != "none" {
			t.Errorf("log_statement = %s: a setting that is not the user's reached the next session", got)
		}
		if left, err := f.Admin.TestOnlyPlan(t.Context(), n); err != nil || len(left) > 0 {
			t.Errorf("left to do: %q, %v", left, err)
		}
	})
}

// TestDefaultPrivileges: default privileges that a holder set for a session role do not apply to
// tables of the next session.
func TestDefaultPrivileges(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		f := plain(t, s)
		alice, group, mallory, db := f.LentUser("alice", ""), f.LentGroup("analysts"), f.LentUser("mallory", ""), f.Database(t)
		n := dbuser.Need{User: alice, Groups: []string{group}, Database: db}
		f.Run("grant create on database %s to %s", db, group)
		first := f.Ensure(n)
		c := f.Logon(first, db)
		clustertest.Exec(t, c, "alter default privileges grant select on tables to "+pgx.Identifier{mallory}.Sanitize())
		clustertest.Exec(t, c, "create schema theirs create table before ()")
		second := f.Logon(f.Ensure(n), db)
		clustertest.Exec(t, second, "create schema mine create table after ()")
		inspector := pgtest.Connect(t, s.Superuser(db))
		reads := func(table string) string {
			return clustertest.One(t, inspector, "select has_table_privilege($1, $2::regclass::oid, 'select')::text", mallory, table)
		}
		if reads("theirs.before") != "true" {
			t.Error("the default privileges are not in force: nothing to guard against")
		}
		if reads("mine.after") != "false" {
			t.Error("the holder's default privileges hold for the table of the next session")
		}
		if got := clustertest.One(t, second, "select session_user::text"); got != first.Name {
			t.Errorf("session_user = %s, want %s as before", got, first.Name)
		}
		if left, err := f.Admin.TestOnlyPlan(t.Context(), n); err != nil || len(left) > 0 {
			t.Errorf("left to do: %q, %v", left, err)
		}
		// The old role is dropped when its last session has ended.
		retired := clustertest.One(t, c, "select session_user::text")
		_ = c.Close(t.Context())
		f.Run("alter role %s valid until '2020-01-01'", retired)
		f.SweepUntil(retired, time.Hour)
		if got := clustertest.One(t, f.Super, "select count(*)::text from pg_roles where rolname = $1", retired); got != "0" || retired == first.Name {
			t.Errorf("%s is still there", retired)
		}
	})
}

// TestLargeSettings: a holder can give their session role and their user any number of settings.
// Settings that are too large are not read.
func TestLargeSettings(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		f := plain(t, s)
		alice := f.LentUser("alice", "")
		f.Run("alter role %s set work_mem = '7MB'", alice)
		n := dbuser.Need{User: alice, Database: "postgres"}
		show := func() string {
			return clustertest.One(t, f.Logon(f.Ensure(n), "postgres"), "select concat(current_setting('work_mem'), length(current_setting('application_name')))")
		}
		large := "alter role %s set search_path = '" + strings.Repeat("x", 60) + strings.Repeat("', '"+strings.Repeat("y", 60), 20000) + "'"
		f.Run(large, f.Ensure(n).Name)
		if got := show(); got != "7MB0" {
			t.Errorf("settings = %s, want the user's", got)
		}
		f.Run("alter role %s in database postgres "+strings.TrimPrefix(large, "alter role %s "), f.Ensure(n).Name)
		if got := show(); got != "7MB0" {
			t.Errorf("settings = %s, want the user's", got)
		}
		f.Run(large, alice)
		if got := show(); !strings.HasPrefix(got, "4MB") {
			t.Errorf("settings = %s, want none of a user's who has too many", got)
		}
		if log := f.Log.String(); !strings.Contains(log, "setting left out") || !strings.Contains(log, "bytes of settings") {
			t.Errorf("the log says nothing of it:\n%.2000s", log)
		}
		f.Run("alter role %s reset search_path", alice)
		if got := show(); got != "7MB0" {
			t.Errorf("settings = %s, want the user's again", got)
		}
	})
}

// TestExactMemberships: Ensure takes away memberships that others have added to a session role,
// and members that it was given.
func TestExactMemberships(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		f := plain(t, s)
		alice, group, other, mallory := f.LentUser("alice", ""), f.LentGroup("analysts"), f.LentGroup("other"), f.LentUser("mallory", "")
		n := dbuser.Need{User: alice, Groups: []string{group}}
		role := f.Ensure(n)
		want := f.Memberships(role.Name)
		f.Run("grant %s to %s", other, role.Name)                   // by the superuser, whose grants a plain login cannot revoke from 16 on
		f.Run("grant %s to %s with admin option", group, role.Name) // could be passed on
		f.Run("grant %s to %s", role.Name, mallory)
		again := f.Ensure(n)
		if got := f.Memberships(again.Name); got != want {
			t.Errorf("memberships of the session role = %s, want %s", got, want)
		}
		if got := f.Memberships(mallory); f.Major() < 16 && got != "" {
			t.Errorf("mallory is in %s", got)
		}
		if got := clustertest.One(t, f.Super, "select count(*)::text from pg_auth_members m join pg_roles r on r.oid = m.member where r.rolname = $1 and m.admin_option", again.Name); got != "0" {
			t.Error("the session role may pass on what it has")
		}
		f.Logon(again, "postgres")
		if left, err := f.Admin.TestOnlyPlan(t.Context(), n); err != nil || len(left) > 0 {
			t.Errorf("left to do: %q, %v", left, err)
		}
	})
}

// TestChangedUnderAChange: the holder changes a setting while a background refresh of the role
// is running. The refresh has already read the state, so the next logon must not rely on it.
func TestChangedUnderAChange(t *testing.T) {
	s := pgtest.Start(t)
	looks := make(chan struct{}, 10)
	f := plain(t, s, func(c *dbuser.Config) {
		c.Observe = func(op dbuser.Operation, _ time.Duration, _ error) {
			if op == dbuser.Look {
				looks <- struct{}{}
			}
		}
	})
	n := dbuser.Need{User: f.LentUser("alice", "")}
	role := f.Ensure(n)
	<-looks
	f.Run("alter role %s valid until '"+time.Now().Add(5*time.Minute).UTC().Format(time.RFC3339)+"'", role.Name)
	refreshed, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	f.Admin.TestOnlyWait()
	clustertest.Before(f.Admin, func(sql string, _ *pgconn.PgConn) {
		if sql == "commit" {
			once.Do(func() { close(refreshed); <-goOn })
		}
	})
	f.Ensure(n)
	<-looks
	<-refreshed
	f.Run("alter role %s set work_mem = '1GB'", role.Name)
	go func() {
		<-looks
		close(goOn)
	}()
	if got := clustertest.One(t, f.Session(n), "show work_mem"); got == "1GB" {
		t.Error("a setting of the holder's reached the next session")
	}
}

// TestForeignGrant: from 16 on a plain login cannot revoke a membership that another role
// granted. Everything else is still corrected.
func TestForeignGrant(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		f := plain(t, s)
		alice, group, other := f.LentUser("alice", ""), f.LentGroup("analysts"), f.LentGroup("other")
		n := dbuser.Need{User: alice, Groups: []string{group}}
		role := f.Ensure(n)
		want := f.Memberships(role.Name)
		for _, late := range []bool{false, true} { // true: the role's VALID UNTIL is also due for a refresh after the logon
			f.Run("grant %s to %s", other, role.Name)
			if late {
				f.Run("alter role %s valid until '"+time.Now().Add(5*time.Minute).UTC().Format(time.RFC3339)+"'", role.Name)
			}
			role = f.Ensure(n)
			if got := f.Memberships(role.Name); got != want {
				t.Errorf("memberships of the session role = %s, want %s", got, want)
			}
			f.Logon(role, "postgres")
		}
	})
}

// TestSelfGrant: in 13 and 14 a role that is logged on can grant itself to others. Mallory must
// not keep alice's rights that way.
func TestSelfGrant(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		if s.Major() > 14 {
			return
		}
		f := plain(t, s)
		alice, group, mallory := f.LentUser("alice", ""), f.LentGroup("analysts"), f.LentUser("mallory", "")
		c := f.Session(dbuser.Need{User: alice, Groups: []string{group}})
		clustertest.Exec(t, c, "grant "+pgtest.Quote("IAM:"+alice+":"+group)+" to "+pgtest.Quote(mallory))
		if f.Memberships(mallory) == "" {
			t.Fatal("no hole")
		}
		f.Ensure(dbuser.Need{User: mallory})
		if got := f.Memberships(mallory); got != "" {
			t.Errorf("mallory is in %s", got)
		}
		clustertest.Exec(t, c, "grant "+pgtest.Quote("IAM:"+alice+":"+group)+" to "+pgtest.Quote(mallory))
		if _, err := f.Admin.Sweep(t.Context(), handover.SweepOptions{}); err != nil {
			t.Fatal(err)
		}
		if got := f.Memberships(mallory); got != "" {
			t.Errorf("after a sweep mallory is in %s", got)
		}
	})
}

// TestAttributesAreCopied: a session role has its user's attributes, except that it can create no
// roles from 16 on, and loses those that the user loses.
func TestAttributesAreCopied(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		f := super(t, s, clustertest.AllowSuperusers) // before 16 a user with CREATEROLE is as good as one
		alice, group := f.LentUser("alice", "CREATEDB CREATEROLE BYPASSRLS"), f.LentGroup("analysts")
		n := dbuser.Need{User: alice, Groups: []string{group}}
		attributes := func() string {
			return clustertest.One(t, f.Super, "select concat_ws(' ', rolcreatedb, rolcreaterole, rolbypassrls, rolsuper, rolreplication) from pg_roles where rolname = $1", f.Ensure(n).Name)
		}
		want := "t t t f f"
		if f.Major() >= 16 {
			want = "t f t f f" // the user can create roles; its session roles cannot
		}
		if got := attributes(); got != want {
			t.Errorf("attributes = %s, want %s", got, want)
		}
		f.Run("alter role %s nocreatedb nocreaterole nobypassrls", alice)
		if got := attributes(); got != "f f f f f" {
			t.Errorf("attributes after they were taken away = %s", got)
		}
		f.Run("alter role %s superuser replication", "IAM:"+alice+":"+group)
		if got := attributes(); got != "f f f f f" {
			t.Errorf("attributes after somebody added some = %s", got)
		}
		f.Run("alter role %s nologin", alice)
		if _, err := f.Admin.Ensure(t.Context(), n); !errors.Is(err, dbuser.ErrUserCannotLogin) {
			t.Errorf("after NOLOGIN: %v", err)
		}
	})
}

// TestRowSecuritySeesTheUser: in a policy of row security, current_user is the user.
func TestRowSecuritySeesTheUser(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		f := plain(t, s)
		alice, db := f.LentUser("alice", ""), f.Database(t)
		f.Exec(t, db, "create table notes (owner text, x text); alter table notes enable row level security;"+
			"create policy own on notes using (owner = current_user); grant select on notes to public;"+
			"insert into notes values ('"+alice+"', 'hers'), ('bob', 'his')")
		c := f.Session(dbuser.Need{User: alice, Database: db})
		if got := clustertest.One(t, c, "select string_agg(x, ' ') from notes"); got != "hers" {
			t.Errorf("alice reads %q, want her row", got)
		}
	})
}

// TestValidUntilMovesAhead: wherever VALID UNTIL is, a logon sets it 15 minutes ahead, and with it
// the gateway's own password.
func TestValidUntilMovesAhead(t *testing.T) {
	s := pgtest.Start(t)
	f := plain(t, s)
	alice := f.LentUser("alice", "")
	role := f.Ensure(dbuser.Need{User: alice})
	left := func() time.Duration {
		var seconds float64
		if err := f.Super.QueryRow(t.Context(), "select extract(epoch from rolvaliduntil - now())::float8 from pg_roles where rolname = $1", role.Name).Scan(&seconds); err != nil {
			t.Fatal(err)
		}
		return time.Duration(seconds) * time.Second
	}
	if got := left(); got < 14*time.Minute || got > 15*time.Minute {
		t.Errorf("VALID UNTIL is %v ahead", got)
	}
	verifier := func() string {
		return clustertest.One(t, f.Super, "select rolpassword from pg_authid where rolname = $1", role.Name)
	}
	ours := verifier()
	for _, sql := range []string{"now() + interval '5 minutes'", "now() - interval '1 day'", "now() + interval '1 day'"} {
		f.Run("do $$ begin execute format('alter role %I valid until %L', '" + role.Name + "', " + sql + "); end $$")
		f.Run("alter role %s password 'the holder''s'", role.Name)
		f.Ensure(dbuser.Need{User: alice})
		f.Admin.TestOnlyWait()
		if verifier() != ours {
			t.Errorf("the holder's password is valid for longer: a logon moved VALID UNTIL, which was at %s", sql)
		}
		f.Logon(role, "postgres")
		if got := left(); got < 14*time.Minute || got > 15*time.Minute {
			t.Errorf("VALID UNTIL is %v ahead after a logon with it at %s", got, sql)
		}
	}
}

// TestNamesThatAreTaken: if another role has the name of a session role, the session role gets its
// fallback name. An identity's user takes its name from a session role, whose sessions go on.
func TestNamesThatAreTaken(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		f := plain(t, s)
		alice, ana := f.LentUser("alice", ""), f.LentUser("ana", "")

		// Another role, not a session role, has the name.
		f.Run("create role %s login password 'its own'", "IAM:"+alice)
		role := f.Ensure(dbuser.Need{User: alice})
		if _, fallback := dbuser.SessionRoleNames(alice, nil, false); role.Name != fallback {
			t.Errorf("session role = %s, want %s", role.Name, fallback)
		}
		if got := clustertest.One(t, f.Logon(role, "postgres"), "select current_user::text"); got != alice {
			t.Errorf("current_user = %s", got)
		}

		// A session role has the name of an identity.
		before := f.Logon(f.Ensure(dbuser.Need{User: ana}), "postgres")
		identity := dbuser.Need{User: "IAM:" + ana, Identity: true}
		c := f.Session(identity)
		if got, want := clustertest.One(t, c, "select current_user || ' ' || session_user"), "IAM:"+ana+" IAMA:IAM:"+ana; got != want {
			t.Errorf("identity session = %s, want %s", got, want)
		}
		after := f.Ensure(dbuser.Need{User: ana})
		if _, fallback := dbuser.SessionRoleNames(ana, nil, false); after.Name != fallback {
			t.Errorf("session role of the user = %s, want %s", after.Name, fallback)
		}
		if got := clustertest.One(t, f.Logon(after, "postgres"), "select current_user::text"); got != ana {
			t.Errorf("current_user = %s, want %s", got, ana)
		}
		if got := clustertest.One(t, before, "select current_user::text"); got != ana {
			t.Errorf("current_user of the session before = %s, want %s", got, ana)
		}
		f.Session(identity)
	})
}

// TestLongNames: users with names of up to 63 bytes can log on, although "IAM:" makes the name of
// the session role longer.
func TestLongNames(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		f := plain(t, s)
		for _, size := range []int{59, 60, 63} {
			user := f.Name("long")
			user += strings.Repeat("x", size-len(user))
			c := f.Session(dbuser.Need{User: user, AutoCreate: true})
			if got := clustertest.One(t, c, "select current_user || ' ' || (length(session_user) <= 63)"); got != user+" true" {
				t.Errorf("user of %d bytes: %s", size, got)
			}
		}
	})
}

// TestPlainLoginLacksRights: an administrative login without rights gets an error that names the
// check.
func TestPlainLoginLacksRights(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		f := newFixture(t, s, s.Login(t, "powerless", ""))
		alice := f.Login(t, "alice", "").Name
		_, err := f.Admin.Ensure(t.Context(), dbuser.Need{User: alice})
		if !errors.Is(err, adminconn.ErrRights) || !strings.Contains(err.Error(), "cluster check examplecluster") {
			t.Errorf("Ensure = %v, want adminconn.ErrRights that names cluster check", err)
		}
	})
}

// TestOddNames: names with quotes, spaces, keywords and SQL in them are names and nothing else.
func TestOddNames(t *testing.T) {
	s := pgtest.Start(t)
	f := plain(t, s)
	for _, odd := range []string{`a"b`, `a'b\`, "Zoë", "a@b.com+c-d", "a:b", "x~y", "select", "DROP TABLE x; --", "$daypass$", "%I"} {
		name := f.Name(odd)
		c := f.Session(dbuser.Need{User: name, AutoCreate: true})
		if got := clustertest.One(t, c, "select current_user::text"); got != name {
			t.Errorf("current_user = %s, want %s", got, name)
		}
	}
}

// TestAttributesBeyondTheLogin: a session role has an attribute that its user lacks and that the login may
// not take away. No session begins with it.
func TestAttributesBeyondTheLogin(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		f := plain(t, s)
		n := dbuser.Need{User: f.LentUser("alice", ""), Groups: []string{f.LentGroup("analysts")}}
		f.Run("alter role %s bypassrls", f.Ensure(n).Name)
		if role, err := f.Admin.Ensure(t.Context(), n); !errors.Is(err, adminconn.ErrRights) {
			t.Errorf("Ensure = %q, %v, want a refusal", role.Name, err)
		}
	})
}
