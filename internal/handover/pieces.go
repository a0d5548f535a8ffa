package handover

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgerrcode"

	"github.com/daypass/daypass/internal/adminconn"
	"github.com/daypass/daypass/internal/pgsql"
)

const (
	// maxPieces is how many objects are handed over one by one in a round, and maxTogether how
	// many in one transaction. Each takes some locks, and a server has only a few thousand for
	// all sessions.
	maxPieces   = 10000
	maxTogether = 32
	// maxWhole is how many tables and similar objects are handed over with one statement. The
	// statement locks them all, with their indexes, so thousands would use up the server's
	// locks. Other objects need no locks; their limit is maxPieces, because other role changes
	// wait for the statement.
	maxWhole = 256
)

// piecesQuery lists what a session role owns in a database, with the type and the name that
// ALTER takes. It leaves out objects that are handed over together with another one, such as a
// column's sequence; temporary tables, which belong to their session; and extensions, whose
// owner ALTER cannot change. Locked objects come last, so that they delay no others.
const piecesQuery = `
select case o.type when 'statistics object' then 'statistics' when 'composite type' then 'type'
    when 'foreign-data wrapper' then 'foreign data wrapper'
    when 'function' then 'routine' when 'procedure' then 'routine' when 'aggregate' then 'routine' else o.type end, o.identity,
  d.classid::int8, d.objid::int8
from pg_shdepend d
cross join lateral pg_identify_object(d.classid, d.objid, 0) o
left join pg_class c on d.classid = 'pg_class'::regclass and c.oid = d.objid
where d.refclassid = 'pg_authid'::regclass and d.refobjid = (select oid from pg_roles where rolname = $1)
  and d.deptype = 'o' and d.dbid = (select oid from pg_database where datname = current_database())
  and d.classid not in ('pg_default_acl'::regclass, 'pg_user_mapping'::regclass, 'pg_extension'::regclass)
  and o.identity is not null
  and (c.oid is null or c.relpersistence <> 't' and not (c.relkind = 'S' and exists (
    select from pg_depend p where p.classid = 'pg_class'::regclass and p.objid = c.oid
      and p.refclassid = 'pg_class'::regclass and p.deptype in ('a', 'i'))))
order by exists (select from pg_locks l where l.relation = c.oid and l.granted and l.pid is distinct from pg_backend_pid()),
  c.oid is null, d.objid
limit $2`

// piece is an object as ALTER names it: "table", "public.t".
type piece struct {
	kind, identity string
	object
}

// object is an object of a database, whatever its name.
type object struct{ class, id int64 }

// ALTER takes a name, and the owner of a schema can give that name to another object just before
// the ALTER, which would then change that object's owner. If the login is a superuser, that works
// with any object. So before the commit, the objects whose owner changed are checked by OID. The
// first query lists the objects that may change: the pieces that the role still owns, and the
// sequences of its tables. The second lists the objects that did change: this transaction wrote
// their dependency on an owner.
const (
	mayChangeQuery = `
select s.classid::int8, s.objid::int8 from pg_shdepend s
where s.refclassid = 'pg_authid'::regclass and s.refobjid = (select oid from pg_roles where rolname = $1)
  and s.deptype = 'o' and s.dbid = (select oid from pg_database where datname = current_database())
  and (s.objid = any ($2::int8[]::oid[]) or s.classid = 'pg_class'::regclass and s.objid in (
    select p.objid from pg_depend p where p.classid = 'pg_class'::regclass and p.refclassid = 'pg_class'::regclass
      and p.refobjid = any ($2::int8[]::oid[]) and p.deptype in ('a', 'i')))`
	didChangeQuery = `
select s.classid::int8, s.objid::int8 from pg_shdepend s
where s.refclassid = 'pg_authid'::regclass and s.deptype = 'o' and s.xmin = pg_current_xact_id()::xid
  and s.dbid = (select oid from pg_database where datname = current_database())`
)

func readObjects(ctx context.Context, c *adminconn.Conn, query string, args ...any) (map[object]bool, error) {
	rows, err := c.Query(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	all := map[object]bool{}
	for rows.Next() {
		var o object
		if err := rows.Scan(&o.class, &o.id); err != nil {
			return nil, err
		}
		all[o] = true
	}
	return all, rows.Err()
}

// errSwapped is why a hand-over was rolled back.
var errSwapped = errors.New("an object was given the name of another one while they were handed over")

// handingOver is one hand-over in one database.
type handingOver struct {
	a     *Admin
	role  string
	until time.Time // zero: it may take its time
	do    adminconn.Transaction
	// grants returns what has to be granted, or errInUse.
	grants func(ctx context.Context, lane, c *adminconn.Conn) (tempGrants, error)
}

func (h *handingOver) timeUp() bool { return !h.until.IsZero() && time.Now().After(h.until) }

// whole hands everything over with one statement.
func (h *handingOver) whole() error {
	return h.do(func(ctx context.Context, lane, c *adminconn.Conn) error {
		temp, err := h.grants(ctx, lane, c)
		if err != nil {
			return err
		}
		return h.a.Pool.Run(ctx, c, temp.around(adminconn.Step{SQL: fmt.Sprintf("reassign owned by %s to %s", pgsql.Ident(h.role), pgsql.Ident(temp.user))}))
	})
}

const surplusQuery = `
select count(*) filter (where d.classid = 'pg_class'::regclass) > $2 or count(*) > $3
from pg_shdepend d
where d.refclassid = 'pg_authid'::regclass and d.refobjid = (select oid from pg_roles where rolname = $1)
  and d.deptype = 'o' and d.dbid = (select oid from pg_database where datname = current_database())`

// surplus hands over object by object until few enough are left for one statement.
func (h *handingOver) surplus() error {
	for {
		var surplus bool
		err := h.do(func(ctx context.Context, _, c *adminconn.Conn) error {
			return c.QueryRow(ctx, surplusQuery, h.role, maxWhole, maxPieces).Scan(&surplus)
		})
		if err != nil || !surplus {
			return err
		}
		if n, err := h.pieces(nil); err != nil || n == 0 {
			return err
		}
	}
}

// pieces hands over object by object, in small transactions. So a table in use, a schema in
// which the user may not create objects, or a shortage of locks holds up only the objects
// concerned. It returns the number of objects that it tried, and the first error of an object
// that could not be handed over. If there are no objects, it returns whole, the error of the
// attempt with one statement.
func (h *handingOver) pieces(whole error) (n int, err error) {
	pieces, err := h.readPieces()
	if err != nil {
		return 0, err
	}
	if len(pieces) == 0 {
		return 0, whole
	}
	var first error
	for rest := pieces; len(rest) > 0; {
		some := rest[:min(maxTogether, len(rest))]
		rest = rest[len(some):]
		refused := h.together(some)
		if refused != nil && len(some) > 1 {
			if refused, err = h.oneByOne(some); err != nil {
				return len(pieces), err
			}
		}
		if first == nil {
			first = refused
		}
		if h.timeUp() && len(rest) > 0 {
			return len(pieces), errMore
		}
	}
	return len(pieces), first
}

func (h *handingOver) readPieces() (pieces []piece, err error) {
	err = h.do(func(ctx context.Context, _, c *adminconn.Conn) error {
		rows, err := c.Query(ctx, piecesQuery, h.role, maxPieces)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var p piece
			if err := rows.Scan(&p.kind, &p.identity, &p.class, &p.id); err != nil {
				return err
			}
			pieces = append(pieces, p)
		}
		return rows.Err()
	})
	return pieces, err
}

// oneByOne hands over objects in one transaction each. refused is the first error about an object;
// any other error ends it.
func (h *handingOver) oneByOne(pieces []piece) (refused, err error) {
	for i := range pieces {
		if h.timeUp() {
			return nil, errMore
		}
		err := h.together(pieces[i : i+1])
		switch {
		case err != nil && !aboutObjects(err) && !errors.Is(err, errSwapped):
			return nil, err
		case refused == nil:
			refused = err
		}
	}
	return refused, nil
}

// aboutObjects reports whether a statement failed because of some of its objects, or because there
// were too many, so that it may succeed with others.
func aboutObjects(err error) bool {
	return adminconn.IsCode(err, pgerrcode.OutOfMemory, pgerrcode.LockNotAvailable) || adminconn.Refused(err)
}

// together hands over some objects in one transaction.
func (h *handingOver) together(together []piece) error {
	return h.do(func(ctx context.Context, lane, c *adminconn.Conn) error {
		temp, err := h.grants(ctx, lane, c)
		if err != nil {
			return err
		}
		var steps []adminconn.Step
		var ids []int64
		for _, p := range together {
			ids = append(ids, p.id)
			steps = append(steps, adminconn.Step{SQL: fmt.Sprintf("alter %s %s owner to %s", p.kind, p.identity, pgsql.Ident(temp.user))})
		}
		may, err := readObjects(ctx, c, mayChangeQuery, h.role, ids)
		if err != nil {
			return err
		}
		err = h.a.Pool.Run(ctx, c, temp.around(steps...))
		if err == nil {
			var did map[object]bool
			did, err = readObjects(ctx, c, didChangeQuery)
			for o := range did {
				if err == nil && !may[o] {
					err = errSwapped
				}
			}
		}
		if err != nil && len(together) == 1 {
			return fmt.Errorf("%s %s: %w", together[0].kind, strings.ToValidUTF8(together[0].identity, "?"), err)
		}
		return err
	})
}
