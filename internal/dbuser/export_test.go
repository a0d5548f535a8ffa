package dbuser

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// SetBefore installs a hook before each statement that changes something.
func (a *Admin) SetBefore(hook func(sql string, c *pgconn.PgConn)) { a.testOnlyBefore = hook }

// Wait waits for what runs behind the callers.
func (a *Admin) Wait() { a.work.Wait() }

// Connects is how often a standing connection was opened.
func (a *Admin) Connects() int {
	a.pool.mu.Lock()
	defer a.pool.mu.Unlock()
	return a.pool.connects
}

// Hold takes a standing connection, as a slow change does, until release.
func (a *Admin) Hold(ctx context.Context) (release func(), err error) {
	c, err := a.pool.acquire(ctx)
	if err != nil {
		return nil, err
	}
	return func() { a.pool.release(c) }, nil
}

// StatePlans reports how many statements an Ensure of n would run now.
func (a *Admin) StatePlans(ctx context.Context, n Need) ([]string, error) {
	n, err := n.normalize()
	if err != nil {
		return nil, err
	}
	s := a.cfg.names(n)
	ctx, cancel := context.WithTimeout(ctx, a.cfg.Timeout)
	defer cancel()
	st, err := a.look(ctx, n, s)
	if err != nil {
		return nil, err
	}
	p, err := a.planFor(st, &request{need: n, names: s})
	var sql []string
	for _, step := range p.steps {
		sql = append(sql, step.sql)
	}
	return sql, err
}

// HBALines are the lines of pg_hba.conf for an administrative login at host.
func HBALines(host, login, gateway string) []string {
	k := checker{config: &pgx.ConnConfig{Config: pgconn.Config{Host: host, User: login}}}
	return k.hbaLines(gateway)
}

var (
	Verifier    = verifier
	SplitList   = splitList
	MatchesName = matchesName
)

// SessionRoleNames returns the preferred and the fallback name.
func SessionRoleNames(user string, groups []string, identity bool) (preferred, fallback string) {
	n := sessionRoleNames(user, groups, identity)
	return n.preferred, n.fallback
}

// BelieveMajor makes an Admin take its hosts for servers of a major version.
func (a *Admin) BelieveMajor(major int) {
	for _, h := range a.pool.hosts {
		h.major.Store(int32(major))
	}
}

// RequiredAuth is what the driver is told to accept from the first of config's
// servers.
func RequiredAuth(config *pgx.ConnConfig) string {
	return splitHosts(config, nil)[0].config.RequireAuth
}

// RoleNameIsOf reports whether a session role's name is one, and says of whom.
func RoleNameIsOf(name, user string) (ok, of bool) {
	n, ok := parseRoleName(name)
	return ok, ok && n.isOf(user)
}

// RetiredName is the name of a session role that stepped aside.
var RetiredName = retiredName

// KeyedName is the third name of the session role for n.
func (a *Admin) KeyedName(n Need) string { return a.cfg.names(n).keyed }
