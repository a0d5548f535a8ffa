package dbuser

import "context"

// DatabasesInDemand returns the databases for which a statement is waiting until they have no
// other session: DROP DATABASE, ALTER DATABASE … RENAME and CREATE DATABASE … TEMPLATE wait for
// up to five seconds and then give up.
func (a *Admin) DatabasesInDemand(ctx context.Context) ([]string, error) {
	c, err := a.Pool.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	var names []string
	err = c.QueryRow(ctx, `select coalesce(array_agg(distinct d.datname::text), '{}') from pg_locks l join pg_database d on d.oid = l.objid
		where l.locktype = 'object' and l.database = 0 and l.classid = 'pg_database'::regclass
		  and l.mode in ('ShareLock', 'ExclusiveLock', 'AccessExclusiveLock')`).Scan(&names)
	a.Pool.Release(c)
	return names, err
}
