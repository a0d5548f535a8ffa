package dbuser

import (
	"context"
	"fmt"
	"strings"

	"github.com/daypass/daypass/internal/adminconn"
)

// maxRoles is how many session roles one user may have. Each set of groups takes one, so that someone who
// may have n groups could have 2^n made. From PostgreSQL 16 on each of them slows down every change of a
// role, also those for other people's logons.
const maxRoles = 256

// rolesOfQuery counts the session roles of a user: those whose names begin with $1, and the tagged ones with
// $2, the hash of the user.
const rolesOfQuery = `select count(*)::int from pg_roles r where (starts_with(r.rolname::text, $1) or substr(r.rolname::text, nullif(strpos(r.rolname::text, '~'), 0) + 2, 20) = $2)
  and ` + isSessionRole

// allowAnother returns an error if the user has as many session roles as it may have. The need has groups.
func (a *Admin) allowAnother(ctx context.Context, c *adminconn.Conn, n Need) error {
	prefix := "IAM:"
	if n.Identity {
		prefix = "IAMA:"
	}
	var there int
	if err := c.QueryRow(ctx, rolesOfQuery, prefix+n.User+":", userHash(n.User)).Scan(&there); err != nil {
		return err
	}
	if there < a.most {
		return nil
	}
	return &adminconn.Error{Kind: ErrManyRoles, Name: n.User,
		Message: fmt.Sprintf("user %q has logged on with %d sets of groups lately, and cannot with %s, too: ask for a set that was used before, or have unused session roles dropped (daypass cluster clean %s --unused 1h)",
			n.User, there, strings.Join(n.Groups, ","), a.Pool.Cluster)}
}
