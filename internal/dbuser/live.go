package dbuser

import (
	"context"
	"maps"
	"sync"
	"time"

	"github.com/daypass/daypass/internal/adminconn"
)

const (
	// askElsewhere bounds the time for asking the other hosts about sessions.
	askElsewhere = 2 * time.Second
	// maxOutlasting bounds the remembered backends that no longer count as sessions.
	maxOutlasting = 10000
)

// LiveElsewhere names the roles that have a session at another host.
func (a *Admin) LiveElsewhere(ctx context.Context, roles []string) (live []string) {
	if len(roles) == 0 || !a.Pool.SeveralHosts() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, askElsewhere)
	defer cancel()
	var mu sync.Mutex
	a.Pool.Others(ctx, func(c *adminconn.Conn) {
		found, err := a.LiveAmong(ctx, c, roles)
		if err != nil {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		live = append(live, found...)
	})
	return live
}

// Backend is a server process, and the address at which the gateway reached it. A cluster has
// several servers, each with its own process IDs.
type Backend struct {
	PID     uint32
	Address string
}

// LiveAmong names those of the roles that have a backend which counts as a session. The answer
// is current even inside a transaction that has read the activity before.
func (a *Admin) LiveAmong(ctx context.Context, c *adminconn.Conn, roles []string) (live []string, err error) {
	pids, oids := a.outlasting(c)
	if _, err := c.Exec(ctx, "select pg_stat_clear_snapshot()"); err != nil {
		return nil, err
	}
	err = c.QueryRow(ctx, `select coalesce(array_agg(distinct r.rolname::text), '{}') from pg_stat_activity a join pg_roles r on r.oid = a.usesysid
		where r.rolname = any ($1::text[]::name[]) and `+isSession+`
		  and not exists (select from unnest($2::int[], $3::int8[]) o (pid, role) where o.pid = a.pid and o.role = a.usesysid::int8)`, roles, pids, oids).Scan(&live)
	return live, err
}

// Outlasts records that a backend of the session role with that OID keeps running although it
// was terminated. From now on it does not count as a session. first reports whether this is new.
func (a *Admin) Outlasts(b Backend, oid uint32) (first bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, known := a.outlastingBackends[b]
	if !known && len(a.outlastingBackends) < maxOutlasting {
		a.outlastingBackends[b] = oid
	}
	return !known
}

// outlasting returns the backends of the server of c that do not count as sessions.
func (a *Admin) outlasting(c *adminconn.Conn) (pids []int32, roles []int64) {
	pids, roles = []int32{}, []int64{} // null would be a condition that is never true
	here := Address(c)
	a.mu.Lock()
	defer a.mu.Unlock()
	for b, oid := range a.outlastingBackends {
		if b.Address == here {
			pids, roles = append(pids, int32(b.PID)), append(roles, int64(oid))
		}
	}
	return pids, roles
}

// AnyOutlasts reports whether there are backends that do not count as sessions.
func (a *Admin) AnyOutlasts() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.outlastingBackends) > 0
}

// ForgetGone forgets the backends recorded by Outlasts that have ended. It returns the session roles,
// by their present names, of those that have not.
func (a *Admin) ForgetGone(ctx context.Context, c *adminconn.Conn) (roles []string, err error) {
	pids, oids := a.outlasting(c)
	here, there := Address(c), map[Backend]bool{}
	if len(pids) > 0 {
		var still []int32
		err := c.QueryRow(ctx, `select coalesce(array_agg(a.pid), '{}'), coalesce(array_agg(distinct a.usename::text) filter (where a.usename is not null), '{}') from unnest($1::int[], $2::int8[]) o (pid, role)
			join pg_stat_activity a on a.pid = o.pid and a.usesysid = o.role::oid`, pids, oids).Scan(&still, &roles)
		if err != nil {
			return nil, err
		}
		for _, pid := range still {
			there[Backend{uint32(pid), here}] = true
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	maps.DeleteFunc(a.outlastingBackends, func(b Backend, _ uint32) bool { return !there[b] })
	return roles, nil
}

// Address returns the server's address, in the form that Backend has.
func Address(c *adminconn.Conn) string { return c.PgConn().Conn().RemoteAddr().String() }
