//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/handover"
	"github.com/daypass/daypass/test/sitetest"
)

// still is what a daypass process holds while it is not used.
type still struct {
	descriptors map[string]int
	standing    int // how many descriptors are administrative connections
	goroutines  map[string]int
	resident    int64
}

// held counts the descriptors without the administrative connections. Up to three of those are kept
// for the next logons.
func (s *still) held() int { return sum(s.descriptors) - s.standing }

const (
	stillFor       = 20 * time.Second // draining floods and slow strangers takes as long as a logon may
	handOverWithin = 45 * time.Second // two sweeps, and the duration of a sweep
)

// standstill measures a process that is not used. It ends the process to get the dump of its
// goroutines.
func (l *load) standstill(ctx context.Context) (*still, error) {
	s := &still{}
	c := l.stack.process()
	s.resident = c.Resident()
	var err error
	if s.descriptors, err = descriptors(c.PID()); err != nil {
		return nil, err
	}
	su, err := l.stack.superuser(ctx, "postgres")
	if err != nil {
		return nil, err
	}
	defer su.Close(ctx)
	if err := su.QueryRow(ctx, "select count(*) from pg_stat_activity where usename = 'daypass'").Scan(&s.standing); err != nil {
		return nil, err
	}
	log, err := os.Stat(l.stack.logFile())
	if err != nil {
		return nil, err
	}
	if err := l.stack.endDaypass(syscall.SIGQUIT, 10*time.Second, "asked for its goroutines"); err != nil {
		return nil, err
	}
	text, err := os.ReadFile(l.stack.logFile())
	if err != nil {
		return nil, err
	}
	s.goroutines = goroutines(text[log.Size():])
	if sum(s.goroutines) == 0 {
		return nil, errors.New("no goroutines in the dump")
	}
	return s, nil
}

// baseline starts a fresh process, uses it once in every way, and then measures it.
func (l *load) baseline(ctx context.Context) (*still, error) {
	r := random(l.seed, "baseline")
	for i := range 6 {
		w := wish{user: userName(i)}
		if i%2 == 0 {
			w.groups = []string{groupName(i % groups)}
		}
		p := l.issuer.issue(ctx, w)
		if p == nil {
			return nil, errors.New("no credential from a fresh process")
		}
		s := l.gate.logon(ctx, p, i%3 == 0, pgx.QueryExecModeExec)
		if s == nil {
			return nil, errors.New("no logon to a fresh process")
		}
		l.create(ctx, s, r)
		s.leave(false)
	}
	l.issuer.transport.CloseIdleConnections()
	pause(ctx, parkedIdle+5*time.Second) // a fresh process has no parked sessions
	return l.standstill(ctx)
}

// ending is the state of PostgreSQL after the load.
type ending struct {
	sessionsGone time.Duration // until no session was left in PostgreSQL
	handedOver   time.Duration // until session roles owned nothing
	tables       int           // the load's tables, each of which must belong to its user
	roles        int           // session roles before the sweep
	swept        int
}

// aftermath checks PostgreSQL after the load.
func (l *load) aftermath(ctx context.Context) (*ending, error) {
	e := &ending{}
	begin := time.Now()
	su, err := l.stack.superuser(ctx, database)
	if err != nil {
		return nil, err
	}
	defer su.Close(ctx)
	waitFor := func(what, query string, most time.Duration) time.Duration {
		var n int
		for {
			if err := su.QueryRow(ctx, query).Scan(&n); err != nil {
				l.ledger.violate("soak", "looking for %s: %v", what, err)
				return 0
			}
			if n == 0 {
				return time.Since(begin)
			}
			if time.Since(begin) > most {
				l.ledger.violate("left behind", "%d %s %v after the end", n, what, time.Since(begin).Round(time.Second))
				return 0
			}
			time.Sleep(200 * time.Millisecond)
		}
	}
	// From PostgreSQL 16 on the creator of a role has ADMIN OPTION on it, so daypass is a member of
	// the marker.
	const sessionRoles = `(select m.member from pg_auth_members m join pg_roles k on k.oid = m.roleid join pg_roles r on r.oid = m.member
		where k.rolname = '` + dbuser.MarkerRole + `' and r.rolname <> 'daypass')`
	e.sessionsGone = waitFor("sessions", "select count(*) from pg_stat_activity where usesysid in "+sessionRoles, 20*time.Second)
	e.handedOver = waitFor("objects owned by session roles",
		"select count(*) from pg_shdepend where refclassid = 'pg_authid'::regclass and deptype = 'o' and refobjid in "+sessionRoles, handOverWithin)

	// Table own_u03_17 must belong to u03.
	if err := su.QueryRow(ctx, "select count(*) from pg_tables where tablename like 'own\\_%'").Scan(&e.tables); err != nil {
		return nil, err
	}
	for what, query := range map[string]string{
		"table that is not its user's": "select tablename || ' of ' || tableowner from pg_tables where tablename like 'own\\_%' and tableowner <> split_part(tablename, '_', 2)",
		"user in a group": `select u.rolname || ' in ' || g.rolname from pg_auth_members m join pg_roles u on u.oid = m.member join pg_roles g on g.oid = m.roleid
			where g.rolname ~ '^g[0-9]$' and m.member not in ` + sessionRoles + ` and u.rolname <> 'daypass'`,
		"member of a session role": `select u.rolname || ' in ' || g.rolname from pg_auth_members m join pg_roles u on u.oid = m.member join pg_roles g on g.oid = m.roleid
			where m.roleid in ` + sessionRoles + ` and u.rolname <> 'daypass'`,
		"session role of another user or group": `select s.rolname || ' in ' || g.rolname from pg_auth_members m join pg_roles s on s.oid = m.member join pg_roles g on g.oid = m.roleid
			where m.member in ` + sessionRoles + ` and g.rolname <> '` + dbuser.MarkerRole + `' and s.rolname like 'IAM:%'
			and not (g.rolname::text = any (string_to_array(substr(s.rolname, 5), ':'))) and s.rolname not similar to 'IAM:(victim|holder|gone|lender)%'`,
		"advisory lock":        "select pid::text from pg_locks where locktype = 'advisory'",
		"prepared transaction": "select gid from pg_prepared_xacts",
	} {
		rows, err := su.Query(ctx, query)
		if err != nil {
			return nil, err
		}
		found, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", what, err)
		}
		if len(found) > 0 {
			l.ledger.violate("left behind", "%s: %d, %s", what, len(found), strings.Join(found[:min(5, len(found))], "; "))
		}
	}
	if err := su.QueryRow(ctx, "select count(*) from pg_roles where oid in "+sessionRoles).Scan(&e.roles); err != nil {
		return nil, err
	}
	return e, l.sweep(ctx, e, su, sessionRoles)
}

// sweep runs the reaper with a period of zero instead of a day, so that every session role without
// a session is dropped.
func (l *load) sweep(ctx context.Context, e *ending, su *pgx.Conn, sessionRoles string) error {
	config, err := pgx.ParseConfig(l.stack.postgres().ConnString("daypass", "postgres"))
	if err != nil {
		return err
	}
	config.Password = sitetest.AdminPassword
	admin := handover.New(dbuser.Config{Cluster: cluster, Conn: config, Now: time.Now})
	defer admin.Close()
	for range 3 {
		report, err := admin.Sweep(ctx, handover.SweepOptions{Unused: time.Nanosecond})
		if err != nil {
			return err
		}
		e.swept += len(report.Dropped)
		if len(report.Kept) == 0 {
			break
		}
	}
	rows, err := su.Query(ctx, "select rolname::text from pg_roles where oid in "+sessionRoles)
	if err != nil {
		return err
	}
	left, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	if len(left) > 0 {
		l.ledger.violate("left behind", "%d session roles that nobody uses and a sweep does not drop: %s", len(left), strings.Join(left[:min(5, len(left))], ", "))
	}
	var members int
	err = su.QueryRow(ctx, `select count(*) from pg_auth_members m join pg_roles g on g.oid = m.roleid join pg_roles u on u.oid = m.member
		where (g.rolname ~ '^([ung][0-9]|victim|holder|gone|lender|rebel)' or u.rolname like 'IAM%') and u.rolname <> 'daypass'`).Scan(&members)
	if err == nil && members > 0 {
		l.ledger.violate("left behind", "%d memberships", members)
	}
	return err
}
