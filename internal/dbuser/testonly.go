package dbuser

import "context"

// TestOnlyWait waits for the work that continues in the background.
func (a *Admin) TestOnlyWait() { a.work.Wait() }

// TestOnlyPlan returns the statements that an Ensure of n would run now.
func (a *Admin) TestOnlyPlan(ctx context.Context, n Need) ([]string, error) {
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
