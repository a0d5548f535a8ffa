//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/daypass/daypass/internal/client"
)

// Tenants log on with equal start-up parameters, so that they get each other's parked sessions if
// they are the same principal with the same user and groups, and never otherwise. Their sessions
// leave behind whatever a session can, and check for traces of the previous session.
const (
	tenants    = 2         // users tenant0 and tenant1; every principal may log on as either
	tenantName = "tenants" // their application_name
)

// principals are the callers who ask for tenants' credentials.
var principals = []struct{ name, id, key string }{
	{"ana", accessKeyID, secretKey},
	{"kim", "AKIASOAKSOAKTENANT00", "soak/secret/access/key/of/forty/letters4"},
	{"pat", "AKIASOAKSOAKTENANT01", "soak/secret/access/key/of/forty/letters5"},
}

// tenant is a session of a tenant.
type tenant struct {
	*session
	id      string // of its credential
	process process
	known   bool // process is known
}

// tenants uses parked sessions: several logons of few principals, users and groups.
func (l *load) tenants(ctx context.Context, r *rand.Rand) {
	for pause(ctx, between(r, 50*time.Millisecond, 800*time.Millisecond)) {
		who := r.IntN(len(principals))
		w := wish{user: fmt.Sprint("tenant", r.IntN(tenants)), create: true}
		if r.IntN(2) == 0 {
			w.groups = []string{groupName(0)}
		}
		p := l.issuer.issueTo(ctx, l.issuer.of[who], w)
		if p == nil {
			continue
		}
		for range 1 + r.IntN(2) { // a credential may be used again
			s := l.move(ctx, who, p, r.IntN(2) == 0)
			if s == nil {
				break
			}
			for range r.IntN(3) {
				if !l.tenantWork(ctx, s.session, r) {
					break
				}
			}
			s.soil(ctx, r)
			l.moveOut(ctx, s, r)
		}
	}
}

// tenantWork is work without the kinds that leave an object behind: such a session is not parked.
func (l *load) tenantWork(ctx context.Context, s *session, r *rand.Rand) bool {
	switch r.IntN(4) {
	case 0:
		return s.rows(ctx, r.IntN(groups))
	case 1:
		return l.transaction(ctx, s, r)
	case 2:
		return l.mistake(ctx, s)
	}
	return s.diary(ctx)
}

// move logs a tenant on and checks which server process it got, and that nothing is left in it.
func (l *load) move(ctx context.Context, who int, p *pass, secure bool) *tenant {
	begin := time.Now()
	conn, a, err := l.gate.connectAs(ctx, p, tenantName, secure, pgx.QueryExecModeCacheStatement)
	grant := l.tenancies.triedWith(p, a)
	if ctx.Err() != nil {
		if conn != nil {
			conn.Close(context.Background())
			l.tenancies.missed()
		}
		return nil
	}
	if err != nil {
		l.ledger.failed(classLogon, fmt.Sprintf("logon of tenant %s %v", p.logon, p.groups), begin, err)
		return nil
	}
	l.ledger.done(classLogon, "logons, tenants", begin)
	s := &tenant{session: l.gate.session(conn, a), id: grant.ID}
	var pid int
	s.do(ctx, "server processes told apart", func(ctx context.Context) error {
		if err := s.QueryRow(ctx, "select pg_backend_pid()", pgx.QueryExecModeSimpleProtocol).Scan(&pid); err != nil {
			return err
		}
		if s.process, s.known = serverProcess(pid); !s.known {
			// It ended after its answer, which the next query finds out.
			return nil
		}
		key := fmt.Sprintf("%s as %s", principals[who].name, p.sessionRole())
		if fault := l.tenancies.use(s.process, key, s.id, p.user, begin, time.Now(), grant.NotAfter); fault != "" {
			return wrong("a parked session was handed out that must not be: %s", fault)
		}
		return nil
	})
	if !s.known {
		l.tenancies.missed()
	}
	s.clean(ctx)
	s.identity(ctx)
	return s
}

// clean checks that nothing is left of the previous session.
func (s *tenant) clean(ctx context.Context) bool {
	return s.do(ctx, "sessions found clean", func(ctx context.Context) error {
		var found string
		err := s.QueryRow(ctx, `select concat_ws(', ',
			(select 'settings '||string_agg(name, ' ') from pg_settings where source = 'session'),
			(select 'prepared statements '||string_agg(name, ' ') from pg_prepared_statements),
			(select 'cursors '||string_agg(name, ' ') from pg_cursors),
			(select 'temporary '||string_agg(relname, ' ') from pg_class where relnamespace = pg_my_temp_schema()),
			(select 'temporary function '||string_agg(proname, ' ') from pg_proc where pronamespace = pg_my_temp_schema()),
			(select 'channels '||string_agg(c, ' ') from pg_listening_channels() c),
			(select 'advisory locks '||string_agg(objid::text, ' ') from pg_locks where pid = pg_backend_pid() and locktype = 'advisory'),
			'mark '||nullif(current_setting('soak.mark', true), ''),
			case when current_setting('work_mem') <> '4MB' or current_setting('default_transaction_read_only') <> 'off'
				or current_setting('client_encoding') <> 'UTF8' or current_setting('DateStyle') <> 'ISO, MDY' then 'another value of a setting' end)`,
			pgx.QueryExecModeSimpleProtocol).Scan(&found)
		switch {
		case err != nil:
			return err
		case found != "":
			return wrong("the session before left %s", found)
		}
		err = s.QueryRow(ctx, "select lastval()", pgx.QueryExecModeSimpleProtocol).Scan(new(int64))
		if said, ok := errors.AsType[*pgconn.PgError](err); ok && said.Code == "55000" { // not yet defined in this session
			return nil
		}
		if err == nil {
			return wrong("lastval() is of the session before")
		}
		return err
	})
}

// soiling is what a session can leave behind.
var soiling = []string{
	"set work_mem = '77MB'", "set soak.mark = 'soiled'", "set default_transaction_read_only = on", "set role none", "set client_encoding = 'LATIN1'",
	"set session characteristics as transaction isolation level serializable", "set datestyle = 'German'", "set search_path = pg_temp, public",
	"create temp table soiled (n int)", "create temp sequence soiled_sequence; select nextval('soiled_sequence')",
	"create function pg_temp.soiled() returns int language sql as 'select 1'", "prepare soiled as select 1", "declare soiled cursor with hold for select 1",
	"listen soiled", "select pg_advisory_lock(pg_backend_pid())", "select pg_advisory_lock_shared(4711)", "select setseed(0.5)",
}

// soil leaves some of soiling behind.
func (s *tenant) soil(ctx context.Context, r *rand.Rand) {
	if r.IntN(5) == 0 {
		return
	}
	for _, i := range r.Perm(len(soiling))[:1+r.IntN(4)] {
		ok := s.do(ctx, "sessions soiled", func(ctx context.Context) error {
			_, err := s.PgConn().Exec(ctx, soiling[i]).ReadAll()
			if said, ok := errors.AsType[*pgconn.PgError](err); ok && (said.Code == "25006" || said.Code == "3F000" || said.Code == "42501") {
				return nil // it has made itself read-only
			}
			return err
		})
		if !ok {
			return
		}
	}
}

// moveOut leaves a session, mostly in good order.
func (l *load) moveOut(ctx context.Context, s *tenant, r *rand.Rand) {
	orderly, abruptly := !s.dead, false
	if !s.dead && r.IntN(6) == 0 {
		orderly = false
		switch r.IntN(3) {
		case 0:
			abruptly = true
		case 1:
			s.do(ctx, "tenants that leave in a transaction", func(ctx context.Context) error {
				_, err := s.PgConn().Exec(ctx, "begin").ReadAll()
				return err
			})
		case 2:
			s.do(ctx, "tenants that leave in a failed transaction", func(ctx context.Context) error {
				_, err := s.PgConn().Exec(ctx, "begin; select 1/0").ReadAll()
				if said, ok := errors.AsType[*pgconn.PgError](err); ok && said.Code == "22012" {
					return nil
				}
				return err
			})
		}
	}
	l.end(s, orderly || s.dead, abruptly)
}

// end ends a tenant's session. A session that a fault has ended may or may not be parked.
func (l *load) end(s *tenant, orderly, abruptly bool) {
	if s.known {
		l.tenancies.leave(s.process, orderly, time.Now())
	}
	s.leave(abruptly)
}

// watchTenancies reports parked sessions that outlive their time.
func (l *load) watchTenancies(ctx context.Context) {
	alive := func(p process) bool {
		now, ok := serverProcess(p.pid)
		return ok && now == p
	}
	for pause(ctx, 500*time.Millisecond) {
		for _, one := range l.tenancies.overdue(time.Now(), alive) {
			l.ledger.failed(everything, "the end of a parked session", one.due, errors.New(one.text))
		}
	}
}

// evictions revokes credentials whose sessions are parked, and waits for others to expire.
func (h *hostile) evictions(ctx context.Context, r *rand.Rand) {
	operator := h.operator()
	if operator == nil {
		return
	}
	for pause(ctx, between(r, 3*time.Second, 10*time.Second)) {
		p := h.issuer.issueTo(ctx, h.issuer.of[0], wish{user: fmt.Sprint("tenant", r.IntN(tenants)), create: true})
		if p == nil {
			continue
		}
		s := h.move(ctx, 0, p, r.IntN(2) == 0)
		if s == nil {
			continue
		}
		h.end(s, true, false)
		h.listed(ctx, operator)
		begin := time.Now()
		if _, err := operator.Revoke(ctx, client.Selector{CredentialID: s.id}); err != nil {
			if ctx.Err() == nil {
				h.ledger.failed(classCall, "RevokeCredentials", begin, err)
			}
			continue
		}
		h.tenancies.revoke(s.id, time.Now())
		h.ledger.done(classCall, "credentials revoked whose session was left", begin)
	}
}

// listed checks the parked sessions that the operator sees.
func (h *hostile) listed(ctx context.Context, operator *client.Client) {
	begin := time.Now()
	list, _, err := operator.Sessions(ctx, cluster, "")
	if err != nil {
		if ctx.Err() == nil {
			h.ledger.failed(classCall, "ListSessions", begin, err)
		}
		return
	}
	list = slices.DeleteFunc(list, func(s client.Session) bool { return s.State != "parked" })
	h.ledger.count("parked sessions in lists", len(list))
	if len(list) > parkedMax {
		h.ledger.violate("too many parked sessions", "%d, and the cluster may have %d", len(list), parkedMax)
	}
	for _, s := range list {
		if over := time.Since(s.Expiration); over > parkedGone {
			h.ledger.failed(everything, "the end of a parked session", s.Expiration, fmt.Errorf("%s is listed %v after its expiry", s.SessionRole, over))
		}
	}
}

// departures leaves sessions just before their credentials expire.
func (h *hostile) departures(ctx context.Context, r *rand.Rand) {
	for pause(ctx, between(r, 10*time.Second, 30*time.Second)) {
		who := r.IntN(len(principals))
		p := h.issuer.issueTo(ctx, h.issuer.of[who], wish{user: fmt.Sprint("tenant", r.IntN(tenants)), create: true})
		if p == nil {
			continue
		}
		go func() {
			if !pause(ctx, time.Until(p.expires)-3*time.Second) {
				return
			}
			if s := h.move(ctx, who, p, false); s != nil {
				h.end(s, true, false)
				h.ledger.count("sessions left in the last seconds of a credential", 1)
			}
		}()
	}
}
