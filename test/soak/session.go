//go:build linux

package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// attempt is one logon as the client saw it. Its application_name identifies it in the audit log.
type attempt struct {
	name    string // application_name
	pass    *pass
	began   time.Time
	settled time.Time
	left    time.Time // when the client ended the session, or lost it
	outcome string    // "in", a SQLSTATE, or "unknown": the connection failed
}

// gate is used to log on. It is safe for concurrent use.
type gate struct {
	stack  *stack
	ledger *ledger
	roots  *x509.CertPool
	number atomic.Int64
	again  again
	// class returns the class of the work in a session with a local address.
	class func(net.Addr) class
	// void reports whether a credential may be refused.
	void func(*pass) bool

	mu       sync.Mutex // guards the fields below
	attempts map[string]*attempt
	open     map[*session]bool
}

func newGate(s *stack, l *ledger, ca string) (*gate, error) {
	pem, err := os.ReadFile(ca)
	if err != nil {
		return nil, err
	}
	g := &gate{stack: s, ledger: l, roots: x509.NewCertPool(), attempts: map[string]*attempt{}, open: map[*session]bool{},
		again: onlyOnce, class: func(net.Addr) class { return classSession }, void: func(*pass) bool { return false }}
	if !g.roots.AppendCertsFromPEM(pem) {
		return nil, errors.New("no certificate in ca.crt")
	}
	return g, nil
}

// try registers an attempt before the logon.
func (g *gate) try(p *pass) *attempt {
	a := &attempt{name: fmt.Sprintf("soak-%07d", g.number.Add(1)), pass: p, began: time.Now(), outcome: "unknown"}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.attempts[a.name] = a
	return a
}

// tryAs is try for an application_name that several attempts share, which does not identify them.
func (g *gate) tryAs(p *pass, name string) *attempt {
	g.number.Add(1)
	return &attempt{name: name, pass: p, began: time.Now(), outcome: "unknown"}
}

// gone records that a session is not used any more.
func (g *gate) gone(s *session) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.open, s)
	if s.attempt.left.IsZero() {
		s.attempt.left = time.Now()
	}
}

// forget removes a session that is about to be ended from those that have to be listed.
func (g *gate) forget(s *session) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.open, s)
}

func (g *gate) settle(a *attempt, outcome string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	a.outcome, a.settled = outcome, time.Now()
}

// session is a client that has logged on, and whose work is judged.
type session struct {
	*pgx.Conn
	gate    *gate
	pass    *pass
	attempt *attempt
	class   class
	well    time.Time // when it last worked
	dead    bool
}

const (
	logonPatience = 20 * time.Second
	queryPatience = 30 * time.Second
)

// connect logs on with pgx, without judging the result.
func (g *gate) connect(ctx context.Context, p *pass, secure bool, mode pgx.QueryExecMode) (*pgx.Conn, *attempt, error) {
	return g.attempt(ctx, g.stack.front.port(), g.try(p), secure, mode)
}

// connectTo is connect for another port than the balancer's.
func (g *gate) connectTo(ctx context.Context, port int, p *pass, secure bool, mode pgx.QueryExecMode) (*pgx.Conn, *attempt, error) {
	return g.attempt(ctx, port, g.try(p), secure, mode)
}

// connectAs is connect with a shared application_name.
func (g *gate) connectAs(ctx context.Context, p *pass, name string, secure bool, mode pgx.QueryExecMode) (*pgx.Conn, *attempt, error) {
	return g.attempt(ctx, g.stack.front.port(), g.tryAs(p, name), secure, mode)
}

func (g *gate) attempt(ctx context.Context, port int, a *attempt, secure bool, mode pgx.QueryExecMode) (*pgx.Conn, *attempt, error) {
	p := a.pass
	config, err := pgx.ParseConfig("sslmode=disable host=127.0.0.1")
	if err != nil {
		return nil, a, err
	}
	config.Port, config.User, config.Password, config.Database = uint16(port), p.logon, p.password, database
	config.RuntimeParams = map[string]string{"application_name": a.name}
	config.DefaultQueryExecMode = mode
	config.ConnectTimeout = logonPatience
	if secure {
		config.TLSConfig = &tls.Config{RootCAs: g.roots, ServerName: "127.0.0.1"}
	}
	ctx, cancel := context.WithTimeout(ctx, logonPatience)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, config)
	var said *pgconn.PgError
	switch {
	case err == nil:
		g.settle(a, "in")
	case errors.As(err, &said):
		g.settle(a, said.Code)
	}
	return conn, a, err
}

// logon logs on and checks the session's user. If that fails, it judges the failure and returns
// nil.
func (g *gate) logon(ctx context.Context, p *pass, secure bool, mode pgx.QueryExecMode) *session {
	begin := time.Now()
	var conn *pgx.Conn
	var a *attempt
	err := g.again(ctx, classLogon, func(ctx context.Context) (err error) {
		conn, a, err = g.connect(ctx, p, secure, mode)
		return err
	})
	if ctx.Err() != nil {
		if conn != nil {
			conn.Close(context.Background())
		}
		return nil
	}
	if err != nil {
		if g.void(p) {
			return nil
		}
		g.ledger.failed(classLogon, fmt.Sprintf("logon %s of %s %v", a.name, p.logon, p.groups), begin, err)
		return nil
	}
	name := "logons, plain"
	if secure {
		name = "logons, TLS"
	}
	g.ledger.done(classLogon, name, begin)
	s := g.session(conn, a)
	g.mu.Lock()
	g.open[s] = true
	g.mu.Unlock()
	s.identity(ctx)
	return s
}

// session returns the session that an attempt led to.
func (g *gate) session(conn *pgx.Conn, a *attempt) *session {
	return &session{Conn: conn, gate: g, pass: a.pass, attempt: a, class: g.class(conn.PgConn().Conn().LocalAddr()), well: time.Now()}
}

// do does one piece of work in a session, judges it, and counts it if it succeeded.
func (s *session) do(ctx context.Context, name string, f func(context.Context) error) bool {
	if s.dead {
		return false
	}
	limited, cancel := context.WithTimeout(ctx, queryPatience)
	defer cancel()
	err := f(limited)
	var wrong *wrongAnswer
	switch {
	case ctx.Err() != nil:
		s.dead = true
	case errors.As(err, &wrong):
		s.gate.ledger.violate("wrong answer in a session", "%s of %s %v (pid %d): %s", name, s.pass.logon, s.pass.groups, s.PgConn().PID(), wrong.text)
	case err != nil:
		s.gate.ledger.failed(s.class, fmt.Sprintf("%s in a session of %s %v", name, s.pass.logon, s.pass.groups), s.well, err)
		s.dead = true
	default:
		s.gate.ledger.done(s.class, name, s.well)
		s.well = time.Now()
	}
	if s.dead {
		s.gate.gone(s)
	}
	return !s.dead
}

// wrongAnswer is an answer that no fault excuses.
type wrongAnswer struct{ text string }

func (w *wrongAnswer) Error() string { return w.text }

func wrong(format string, args ...any) error { return &wrongAnswer{fmt.Sprintf(format, args...)} }

// sessionRole returns the role that the gateway logs on as.
func (p *pass) sessionRole() string {
	list := slices.Clone(p.groups)
	slices.Sort(list)
	return strings.Join(append([]string{"IAM:" + p.user}, list...), ":")
}

// identity checks the session's user.
func (s *session) identity(ctx context.Context) bool {
	return s.do(ctx, "identity checks", func(ctx context.Context) error {
		var current, role, application string
		var defaults int
		// A session with groups has its own search_path, in which $user is the user.
		err := s.QueryRow(ctx, `select current_user::text, session_user::text, current_setting('application_name'),
			(select count(*) from pg_settings where source in ('user', 'database user') and
				(name in ('work_mem', 'statement_timeout') or name = 'search_path' and setting = 'pg_catalog'))`).
			Scan(&current, &role, &application, &defaults)
		if err != nil {
			return err
		}
		want := s.pass.user
		if len(s.pass.groups) > 0 {
			want = s.pass.sessionRole()
		}
		if current != want || role != s.pass.sessionRole() {
			return wrong("current_user %q, want %q; session_user %q, want %q", current, want, role, s.pass.sessionRole())
		}
		if application != s.Config().RuntimeParams["application_name"] {
			return wrong("application_name %q, want %q", application, s.Config().RuntimeParams["application_name"])
		}
		if defaults > 0 {
			return wrong("a setting of another session's holder is in force")
		}
		return nil
	})
}

// rows reads the table of a group: all of its rows for members, none for others.
func (s *session) rows(ctx context.Context, group int) bool {
	return s.do(ctx, "reads of a group's table", func(ctx context.Context) error {
		member := slices.Contains(s.pass.groups, groupName(group))
		var n, others int
		err := s.QueryRow(ctx, "select count(*), count(*) filter (where word <> $1) from "+groupName(group)+"_rows", groupName(group)).Scan(&n, &others)
		var said *pgconn.PgError
		switch {
		case errors.As(err, &said) && said.Code == "42501":
			if member {
				return wrong("a member of %s may not read its rows", groupName(group))
			}
			return nil
		case err != nil:
			return err
		case !member:
			return wrong("read %d rows of %s without being in it", n, groupName(group))
		case n != 10+group || others != 0:
			return wrong("%d rows of %s, %d not its own; want %d", n, groupName(group), others, 10+group)
		}
		return nil
	})
}

// diary reads a table with row security.
func (s *session) diary(ctx context.Context) bool {
	return s.do(ctx, "reads under row security", func(ctx context.Context) error {
		rows, err := s.Query(ctx, "select line from diary")
		if err != nil {
			return err
		}
		lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			return err
		}
		var want []string
		if len(s.pass.groups) == 0 && strings.HasPrefix(s.pass.user, "u") {
			want = []string{s.pass.user + " only"}
		}
		if !slices.Equal(lines, want) {
			return wrong("read %q, want %q", lines, want)
		}
		return nil
	})
}

func (s *session) leave(abruptly bool) {
	s.gate.gone(s)
	if abruptly {
		s.PgConn().Conn().Close()
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	s.Close(ctx)
}
