package dbuser_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/daypass/daypass/internal/adminconn"
	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/handover"
	"github.com/daypass/daypass/test/clustertest"
	"github.com/daypass/daypass/test/pgtest"
)

// TestSessionWithoutGroups: a session without groups works as its user, also after RESET ROLE and
// DISCARD ALL. The session role is a member of the user and the marker, and of nothing else.
func TestSessionWithoutGroups(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		f := plain(t, s)
		alice := f.LentUser("alice", "")
		c := f.Session(dbuser.Need{User: alice})
		check := func(when, current string) {
			t.Helper()
			if got := clustertest.One(t, c, "select current_user || ' ' || session_user"); got != current+" IAM:"+alice {
				t.Errorf("%s: current_user, session_user = %s, want %s IAM:%s", when, got, current, alice)
			}
		}
		check("at logon", alice)
		clustertest.Exec(t, c, "reset role")
		check("after RESET ROLE", alice)
		clustertest.Exec(t, c, "discard all")
		check("after DISCARD ALL", alice)
		clustertest.Exec(t, c, "set role none")
		check("after SET ROLE NONE", "IAM:"+alice)
		if got, want := f.Memberships("IAM:"+alice), alice+" "+dbuser.MarkerRole; got != want {
			t.Errorf("the session role is a member of %s, want %s", got, want)
		}
		if got := clustertest.One(t, f.Super, "select rolpassword from pg_authid where rolname = $1", "IAM:"+alice); !strings.HasPrefix(got, "SCRAM-SHA-256$1:") {
			t.Errorf("verifier is %.20s..., want one iteration", got)
		}
	})
}

// TestNothingIsLeftAfterEnsure: an Ensure that has just succeeded leaves the next one nothing to
// change, whatever settings the user has.
func TestNothingIsLeftAfterEnsure(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		for name, f := range map[string]*fixture{"plain": plain(t, s), "superuser": super(t, s)} {
			alice, g := f.LentUser("alice", "CONNECTION LIMIT 7"), f.LentGroup("analysts")
			f.Run("alter role %s set search_path = '$user', \"Odd, name\", public", alice)
			f.Run("alter role %s in database postgres set work_mem = '7MB'", alice)
			for _, n := range []dbuser.Need{{User: alice}, {User: alice, Groups: []string{g}}, {User: f.Name("newcomer"), AutoCreate: true}} {
				f.Ensure(n)
				if left, err := f.Admin.TestOnlyPlan(t.Context(), n); err != nil || len(left) > 0 {
					t.Errorf("%s: after Ensure(%v) there is left to do: %q, %v", name, n, left, err)
				}
			}
		}
	})
}

// TestTwoSessionsWithDifferentGroups: each session has the rights of its own groups and of the
// user's, and the user's own memberships stay as they are.
func TestTwoSessionsWithDifferentGroups(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		f := plain(t, s)
		alice, own, analysts, finance := f.LentUser("alice", ""), f.LentGroup("own"), f.LentGroup("analysts"), f.LentGroup("finance")
		f.Run("grant %s to %s", own, alice)
		for _, g := range []string{own, analysts, finance} {
			f.Run("create table %s (x int)", "t_"+g)
			f.Run("grant select on %s to %s", "t_"+g, g)
		}
		sees := func(groups ...string) string {
			t.Helper()
			c := f.Session(dbuser.Need{User: alice, Groups: groups})
			var seen []string
			for _, g := range []string{own, analysts, finance} {
				if clustertest.One(t, c, "select has_table_privilege($1, 'select')::text", "t_"+g) == "true" {
					seen = append(seen, g)
				}
			}
			return strings.Join(seen, " ")
		}
		for _, tt := range []struct {
			groups []string
			want   string
		}{
			{nil, own},
			{[]string{analysts}, own + " " + analysts},
			{[]string{finance}, own + " " + finance},
			{[]string{finance, analysts, finance}, strings.Join([]string{own, analysts, finance}, " ")},
		} {
			if got := sees(tt.groups...); got != tt.want {
				t.Errorf("a session with groups %v reads %q, want %q", tt.groups, got, tt.want)
			}
		}
		if got := f.Memberships(alice); got != own {
			t.Errorf("the user is a member of %q afterwards, want %q", got, own)
		}
	})
}

// TestTwoHundredFirstLogons: 200 first logons of one new user at three gateways all succeed, and
// make the user once, without a password.
func TestTwoHundredFirstLogons(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		f := plain(t, s)
		gateways := []*handover.Admin{f.Admin, f.Another(), f.Another()}
		user := f.Name("newcomer")
		var wg sync.WaitGroup
		errs := make(chan error, 200)
		for i := range 200 {
			wg.Go(func() {
				_, err := gateways[i%len(gateways)].Ensure(t.Context(), dbuser.Need{User: user, AutoCreate: true})
				errs <- err
			})
		}
		wg.Wait()
		close(errs)
		for err := range errs {
			if err != nil {
				t.Fatal(err)
			}
		}
		f.Logon(f.Ensure(dbuser.Need{User: user}), "postgres")
		if got := clustertest.One(t, f.Super, "select rolcanlogin || ' ' || (rolpassword is null) from pg_authid where rolname = $1", user); got != "true true" {
			t.Errorf("the new user can log in, has no password = %s", got)
		}
	})
}

// TestManyNewUsersAtOnce: first logons of many new users at two gateways at the same time all
// succeed.
func TestManyNewUsersAtOnce(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		f := plain(t, s)
		gateways := []*handover.Admin{f.Admin, f.Another()}
		group, prefix := f.LentGroup("everybody"), f.Name("crowd")
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() {
				n := dbuser.Need{User: fmt.Sprintf("%s_%d", prefix, i/2), Groups: []string{group}, AutoCreate: true}
				if _, err := gateways[i%2].Ensure(t.Context(), n); err != nil {
					t.Errorf("Ensure(%v): %v", n, err)
				}
			})
		}
		wg.Wait()
	})
}

// TestRefused: users and groups that may not be lent are refused for the right reason, and a
// refusal leaves no role behind.
func TestRefused(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		f := plain(t, s)
		alice, group := f.LentUser("alice", ""), f.LentGroup("group")
		f.Ensure(dbuser.Need{User: alice})

		root, chief := f.Login(t, "boss", "SUPERUSER").Name, f.LentUser("chief", "")
		deputy, between := f.LentUser("deputy", "NOINHERIT"), f.LentGroup("between")
		f.Run("grant %s to %s", root, chief)
		f.Run("grant %s to %s", root, between)
		f.Run("grant %s to %s", between, deputy)
		rootGroup, nologin := f.Group(t, "wheel"), f.LentGroup("nologin")
		f.Run("alter role %s superuser", rootGroup)
		operator, operators := f.Login(t, "operator", "").Name, f.Group(t, "operators")
		f.Run("grant %s to %s", f.As.Name, operators)
		f.Run("grant %s to %s", operators, operator)
		filer, makers, viaMakers := f.LentUser("filer", ""), f.LentGroup("makers"), f.LentGroup("via_makers")
		f.Run("grant pg_write_server_files to %s", filer)
		f.Run("alter role %s createrole", makers)
		f.Run("grant %s to %s", makers, viaMakers)
		files := f.LentGroup("files")
		f.Run("grant pg_execute_server_program to %s", files)
		replicators, marked := f.LentGroup("replicators"), "IAMR:"+f.Name("marked")
		f.Run("alter role %s replication", replicators)
		f.Run("create role %s login", marked)
		f.Run("grant %s to %s", dbuser.MarkerRole, marked)

		var makersRefused error
		if s.Major() < 16 { // from 16 on it gains no rights over other roles
			makersRefused = dbuser.ErrGroupRefused
		}

		long := strings.Repeat("x", 64)
		for _, tt := range []struct {
			name string
			need dbuser.Need
			want error
		}{
			{"missing user", dbuser.Need{User: "nobody-here"}, dbuser.ErrUserMissing},
			{"superuser", dbuser.Need{User: root}, dbuser.ErrUserRefused},
			{"superuser, auto-created", dbuser.Need{User: root, AutoCreate: true}, dbuser.ErrUserRefused},
			{"member of a superuser", dbuser.Need{User: chief}, dbuser.ErrUserRefused},
			{"member of a member of a superuser, without inheritance", dbuser.Need{User: deputy}, dbuser.ErrUserRefused},
			{"administrative login", dbuser.Need{User: f.As.Name}, dbuser.ErrUserRefused},
			{"member of a member of the administrative login", dbuser.Need{User: operator}, dbuser.ErrUserRefused},
			{"member of a role that amounts to a superuser", dbuser.Need{User: filer}, dbuser.ErrUserRefused},
			{"session role", dbuser.Need{User: "IAM:" + alice}, dbuser.ErrUserRefused},
			{"marker", dbuser.Need{User: dbuser.MarkerRole, AutoCreate: true}, dbuser.ErrUserRefused},
			{"predefined", dbuser.Need{User: "pg_monitor", AutoCreate: true}, dbuser.ErrUserRefused},
			{"reserved by PostgreSQL", dbuser.Need{User: "none", AutoCreate: true}, dbuser.ErrUserRefused},
			{"cannot log in", dbuser.Need{User: nologin, AutoCreate: true}, dbuser.ErrUserCannotLogin},
			{"user of 64 bytes", dbuser.Need{User: long, AutoCreate: true}, dbuser.ErrNameTooLong},
			{"user of 32 characters and 64 bytes", dbuser.Need{User: strings.Repeat("é", 32), AutoCreate: true}, dbuser.ErrNameTooLong},
			{"database of 64 bytes", dbuser.Need{User: alice, Database: long}, dbuser.ErrNameTooLong},
			{"empty user", dbuser.Need{AutoCreate: true}, dbuser.ErrNameInvalid},
			{"NUL", dbuser.Need{User: "a\x00b", AutoCreate: true}, dbuser.ErrNameInvalid},
			{"identity without prefix", dbuser.Need{User: alice, Identity: true}, dbuser.ErrNameInvalid},
			{"missing group", dbuser.Need{User: alice, Groups: []string{"no-such-group"}}, dbuser.ErrGroupMissing},
			{"group is the user", dbuser.Need{User: alice, Groups: []string{alice}}, dbuser.ErrNotAGroup},
			{"group is the user to be made", dbuser.Need{User: "fresh", AutoCreate: true, Groups: []string{"fresh"}}, dbuser.ErrGroupMissing},
			{"group can log in", dbuser.Need{User: alice, Groups: []string{group, operator}}, dbuser.ErrNotAGroup},
			{"group is a superuser", dbuser.Need{User: alice, Groups: []string{rootGroup}}, dbuser.ErrGroupRefused},
			{"group is a member of a superuser", dbuser.Need{User: alice, Groups: []string{between}}, dbuser.ErrGroupRefused},
			{"group is a member of the administrative login", dbuser.Need{User: alice, Groups: []string{operators}}, dbuser.ErrGroupRefused},
			{"group is the administrative login", dbuser.Need{User: alice, Groups: []string{f.As.Name}}, dbuser.ErrGroupRefused},
			{"group makes roles", dbuser.Need{User: alice, Groups: []string{makers}}, dbuser.ErrGroupRefused},
			{"group is a member of one that makes roles", dbuser.Need{User: alice, Groups: []string{viaMakers}}, makersRefused},
			{"group replicates", dbuser.Need{User: alice, Groups: []string{replicators}}, dbuser.ErrGroupRefused},
			{"an identity's user in the marker", dbuser.Need{User: marked, Identity: true}, dbuser.ErrUserRefused},
			{"group runs programs", dbuser.Need{User: alice, Groups: []string{files}}, dbuser.ErrGroupRefused},
			{"group is predefined", dbuser.Need{User: alice, Groups: []string{"pg_monitor"}}, dbuser.ErrGroupRefused},
			{"group is the marker", dbuser.Need{User: alice, Groups: []string{dbuser.MarkerRole}}, dbuser.ErrGroupRefused},
			{"group is a session role", dbuser.Need{User: alice, Groups: []string{"IAM:" + alice}}, dbuser.ErrGroupRefused},
			{"group of 64 bytes", dbuser.Need{User: alice, Groups: []string{long}}, dbuser.ErrNameTooLong},
		} {
			role, err := f.Admin.Ensure(t.Context(), tt.need)
			if !errors.Is(err, tt.want) {
				t.Errorf("%s: Ensure(%+v) = %q, %v, want %v", tt.name, tt.need, role.Name, err, tt.want)
			}
		}
		if got := clustertest.One(t, f.Super, "select count(*)::text from pg_roles where rolname in ('fresh', 'none')"); got != "0" {
			t.Error("a refused logon left a user behind")
		}
	})
}

// TestAllowed: AllowSuperusers and AllowPredefinedRoles let superusers and pg_* roles be lent, but
// only by a login that may.
func TestAllowed(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		f := super(t, s, clustertest.AllowSuperusers, clustertest.AllowPredefinedRoles)
		root, alice := f.LentUser("boss", "SUPERUSER"), f.LentUser("alice", "")
		c := f.Session(dbuser.Need{User: root})
		if got := clustertest.One(t, c, "select current_user || ' ' || current_setting('is_superuser')"); got != root+" on" {
			t.Errorf("a superuser's session is %s", got)
		}
		c = f.Session(dbuser.Need{User: alice, Groups: []string{"pg_monitor"}})
		if got := clustertest.One(t, c, "select pg_has_role('pg_monitor', 'usage')::text"); got != "true" {
			t.Errorf("pg_monitor's rights are usable = %s", got)
		}

		f = plain(t, s, clustertest.AllowSuperusers)
		if _, err := f.Admin.Ensure(t.Context(), dbuser.Need{User: root + "_other", AutoCreate: true}); err != nil {
			t.Error(err)
		}
		if _, err := f.Admin.Ensure(t.Context(), dbuser.Need{User: f.Login(t, "boss", "SUPERUSER").Name}); !errors.Is(err, adminconn.ErrRights) {
			t.Errorf("a plain login lends a superuser: %v, want adminconn.ErrRights", err)
		}
	})
}
