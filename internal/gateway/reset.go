package gateway

import (
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/pgwire"
)

const (
	// resetTimeout bounds the reset of a session before it is parked.
	resetTimeout = 2 * time.Second
	discardAll   = "DISCARD ALL"
)

// reset brings the session back to the state in which it began, and proves that it did.
// user is the role that it works as; empty: the session role.
//
// DISCARD ALL does not remove the following. A session that has any of it is not reset but
// refused; only the random seed is simply replaced:
//
//   - what a superuser can leave behind (see newOrigin);
//   - a replication origin or a backup that goes on, which nothing shows to everyone: a session
//     that may begin either is refused;
//   - objects that the session role owns, and grants to it: they have to be cleaned up;
//   - prepared transactions of any role that the session can become;
//   - the seed of random(), which is set to a new random value;
//   - the variables of procedural languages, and the state of libraries in C, such as
//     connections of dblink and postgres_fdw. From PostgreSQL 18 on the server tells which
//     libraries are loaded. Older ones do not, so there a session is refused in every
//     database that has a function in another language than SQL and PL/pgSQL, or in which
//     it could create an extension: the library stays when the extension is rolled back.
//
// What DISCARD ALL does remove (settings, cursors, LISTEN, locks and the like) is verified at the
// first reset of a process only, since that depends on the server and not on what the session did,
// and the lists of all settings and locks take most of the time.
//
// RESET ALL goes back to the settings with which the process started. The holder of the session
// role, or the owner of the database, may have changed them just before, and changed them back
// since. SessionRole.Seen detects every change to a row of settings that existed when the session
// role was looked at; so a process that began with a setting from a row that did not exist then
// is refused.
//
// All names in the query are qualified, because the owner of a database chooses its
// search_path.
func (u *upstream) reset(user, role string, begins dbuser.SettingSources) error {
	if user == "" {
		user = role
	}
	if err := u.mayReset(); err != nil {
		return err
	}
	if err := u.SetDeadline(time.Now().Add(resetTimeout)); err != nil {
		return err
	}
	query, want, err := u.proof(user, role)
	if err != nil {
		return err
	}
	// Both are sent at once, because each wait for an answer costs CPU on both sides.
	results, err := u.askAll(discardAll, query)
	switch {
	case err != nil && len(results) == 0:
		return fmt.Errorf("resetting: %w", err)
	case err != nil:
		return fmt.Errorf("verifying the reset: %w", err)
	case len(results[0].values) != 0 || results[0].status != pgwire.StatusIdle:
		return errors.New("resetting: an unexpected answer")
	}
	answers := results[1].values
	if len(answers) < len(want) || u.ready != pgwire.StatusIdle || len(u.early) > 0 {
		return errors.New("verifying the reset: an unexpected answer")
	}
	for i, w := range want {
		if answers[i] != w.value {
			return fmt.Errorf("verifying the reset: %s", w.what)
		}
	}
	sources := answers[len(want):]
	if u.proven && len(sources) > 0 {
		return errors.New("verifying the reset: an unexpected answer")
	}
	for _, source := range sources {
		if !begins.Has(source) {
			return fmt.Errorf("verifying the reset: it has a setting that its session role and its database did not have, with source %.100q", source)
		}
	}
	u.proven = true
	return u.SetDeadline(time.Time{})
}

// mayReset returns why sessions of this server are never parked, or nil if they may be. On some
// minor versions DISCARD ALL makes a session work as another role.
func (u *upstream) mayReset() error {
	if fault := dbuser.MinorFault(u.status["server_version"]); fault != "" {
		return errors.New("the server " + fault)
	}
	if u.version() < 13 {
		return errors.New("the server does not report a supported version")
	}
	return nil
}

// proven is a value that a session must have after its reset, with a description.
type proven struct{ value, what string }

// sessionRole is the OID of the role that the session is logged on as, in SQL.
const sessionRole = "pg_catalog.quote_ident(session_user)::pg_catalog.regrole::pg_catalog.oid"

// proof returns the query that verifies a reset and the values that it must return. At the first
// reset of a process the query then returns the sources of the settings that the process began
// with. It asks the functions below the system views, since planning the views costs more than all
// the rest.
func (u *upstream) proof(user, role string) (query string, want []proven, err error) {
	var rows []string
	expect := func(sql, value, what string) {
		rows, want = append(rows, "("+sql+")"), append(want, proven{value, what})
	}
	none := func(from, what string) {
		expect("(EXISTS (SELECT FROM "+from+"))::pg_catalog.text", "false", what)
	}
	nonce := rand.Text()
	expect("'"+nonce+"'::pg_catalog.text", nonce, "not the answer to this query")
	expect("current_user::pg_catalog.text", user, "it works as another role")
	expect("session_user::pg_catalog.text", role, "it is logged on as another role")
	for _, name := range slices.Sorted(maps.Keys(u.status)) {
		if !settingNamed(name) {
			return "", nil, fmt.Errorf("the server reports a setting with the name %.100q", name)
		}
		expect("pg_catalog.current_setting('"+name+"')", u.status[name], "setting "+name+" has another value")
	}
	// The server generates the new seed, so that no one can read it in pg_stat_activity.
	expect("(pg_catalog.setseed(pg_catalog.hashtextextended(pg_catalog.gen_random_uuid()::pg_catalog.text, 0)::pg_catalog.float8"+
		" OPERATOR(pg_catalog./) 9223372036854775808::pg_catalog.float8))::pg_catalog.text", "", "random() has no new seed")
	none("pg_catalog.pg_get_replication_slots() r WHERE r.active_pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()", "it uses a replication slot")
	none("pg_catalog.pg_proc p, pg_catalog.aclexplode(p.proacl) a WHERE p.proname OPERATOR(pg_catalog.=) ANY ('{pg_replication_origin_session_setup,pg_backup_start,pg_start_backup}'::pg_catalog.name[])"+
		" AND p.pronamespace OPERATOR(pg_catalog.=) 11::pg_catalog.oid AND CASE WHEN a.grantee OPERATOR(pg_catalog.=) 0::pg_catalog.oid THEN true ELSE pg_catalog.pg_has_role(session_user, a.grantee, 'member') END",
		"it may have a replication origin, or a backup that goes on")
	// The owner is the role that prepared it, which may be any that the session can become.
	none("pg_catalog.pg_prepared_xact() x WHERE pg_catalog.pg_has_role(session_user, x.ownerid, 'member')", "there is a prepared transaction")
	none("pg_catalog.pg_shdepend d WHERE d.refclassid OPERATOR(pg_catalog.=) 1260::pg_catalog.oid AND d.refobjid OPERATOR(pg_catalog.=) "+sessionRole,
		"its session role owns something or has been granted something")
	if u.version() >= 18 {
		none("pg_catalog.pg_get_loaded_modules() m WHERE m.file_name OPERATOR(pg_catalog.!~) '^(plpgsql|llvmjit|dict_snowball|utf8_and_[a-z0-9_]+)[.]'", "it has loaded a library")
	} else {
		none("pg_catalog.pg_proc p JOIN pg_catalog.pg_language l ON l.oid OPERATOR(pg_catalog.=) p.prolang"+
			" WHERE p.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid AND l.lanname OPERATOR(pg_catalog.!~) '^(internal|sql|plpgsql)$'",
			"the database has functions in other languages than SQL and PL/pgSQL")
		none("pg_catalog.pg_database d WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database() AND (pg_catalog.pg_has_role(session_user, d.datdba, 'member')"+
			" OR EXISTS (SELECT FROM pg_catalog.aclexplode(d.datacl) a WHERE a.privilege_type OPERATOR(pg_catalog.=) 'CREATE'"+
			" AND CASE WHEN a.grantee OPERATOR(pg_catalog.=) 0::pg_catalog.oid THEN true ELSE pg_catalog.pg_has_role(session_user, a.grantee, 'member') END))",
			"it may have created an extension and dropped it, whose library stays")
	}
	if u.proven {
		return "VALUES " + strings.Join(rows, ", "), want, nil
	}
	none("pg_catalog.pg_prepared_statement()", "it has a prepared statement")
	none("pg_catalog.pg_cursor()", "it has a cursor")
	none("pg_catalog.pg_listening_channels()", "it listens")
	none("pg_catalog.pg_lock_status() l WHERE l.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid() AND l.locktype OPERATOR(pg_catalog.=) 'advisory'", "it holds an advisory lock")
	// pg_depend has a row for every object in a schema.
	none("pg_catalog.pg_depend d WHERE d.refclassid OPERATOR(pg_catalog.=) 2615::pg_catalog.oid AND d.refobjid OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema()", "it has a temporary object")
	return "WITH settings AS MATERIALIZED (SELECT DISTINCT s.source FROM pg_catalog.pg_show_all_settings() s" +
		" WHERE s.source OPERATOR(pg_catalog.=) ANY ('{session,global,database,user,database user}'::pg_catalog.text[]))" +
		" VALUES " + strings.Join(rows, ", ") + " UNION ALL SELECT source FROM settings", want, nil
}

// settingNamed reports whether a name contains nothing that a literal would have to escape.
func settingNamed(name string) bool {
	return name != "" && strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_.0123456789") == ""
}

// version returns the server's major version, or 0 if the server did not report it.
func (u *upstream) version() (major int) {
	_, _ = fmt.Sscan(strings.SplitN(u.status["server_version"], ".", 2)[0], &major)
	return major
}
