package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/handover"
	"github.com/daypass/daypass/internal/postgres"
)

// growth holds the costs of one unit of work, on a small installation (one user, one cluster, no
// other sessions) and on large ones. Costs are CPU time, because other programs on the machine
// disturb it less than elapsed time.
type growth struct {
	major  int // of PostgreSQL
	curve  *growthCurve
	tables []*growthTable
	idle   []idleCost
}

// growthTable compares the cost of a kind of work. The first row is the one that the others are
// compared with.
type growthTable struct {
	title string
	units int // in one round
	rows  []*growthRow
}

type growthRow struct {
	name     string
	work     func(ctx context.Context, units int) error
	daypass  func() time.Duration
	database func() time.Duration // nil: not measured
	settle   time.Duration        // how long the work goes on in the background
	server   *server              // nil: this process
	on       *database

	rounds []growthCost
}

// spent returns the CPU time that has been used so far.
func (row *growthRow) spent() growthCost {
	c := growthCost{daypass: row.daypass()}
	if row.database != nil {
		c.database = row.database()
	}
	return c
}

type growthCost struct{ daypass, database time.Duration } // for one unit

// idleCost is what a server costs while it is not used.
type idleCost struct {
	name              string
	daypass, database time.Duration // in a second
	resident          int64
	server            *server
	on                *database
}

// The names of rows.
const (
	another     = "the same, another process"
	withIdle    = "5 000 idle sessions"
	withRoles   = "10 000 session roles in the cluster"
	withAll     = "10 000 users, 1 000 groups, 200 clusters"
	inTurn      = "and 10 000 principals in turn"
	withCluster = "200 clusters that answer"
)

// growth measures the costs.
func (s *stack) growth(ctx context.Context, o options) (*growth, error) {
	g := &growth{major: s.small.server.Installation().Major}
	spent := map[*database]func() time.Duration{}
	for _, d := range []*database{s.small, s.large, s.grown.crowd, s.grown.second, s.grown.third} {
		pid, err := d.postmaster(ctx)
		if err != nil {
			return nil, err
		}
		spent[d] = func() time.Duration { return familyCPU(pid) }
	}
	of := func(name string, server *server, d *database, settle time.Duration, work func(context.Context, int) error) *growthRow {
		return &growthRow{name: name, work: work, settle: settle, server: server, on: d, daypass: func() time.Duration { return exactCPU(server.PID()) }, database: spent[d]}
	}
	call := func(name string, server *server, d *database, principals int) *growthRow {
		row := of(name, server, d, 0, calls(server.endpoint(principals)))
		row.database = nil // a call reads no database
		return row
	}
	logon := func(name string, server *server, d *database) *growthRow {
		return of(name, server, d, endedWithin, logonsAndEnds(server.through("require")))
	}
	transaction := func(name string, server *server, d *database) *growthRow {
		return of(name, server, d, 0, transactionsOf(server.through("disable")))
	}
	g.tables = []*growthTable{
		{title: "A call", units: 4000, rows: []*growthRow{call(one, s.server, s.small, 1), call(another, s.grown.twin, s.grown.second, 1),
			call(withIdle, s.grown.idle, s.grown.second, 1), call(withAll, s.registry, s.large, 1), call(withAll+", "+inTurn, s.registry, s.large, largeSize.users)}},
		{title: "A logon with TLS, and its end", units: 150, rows: []*growthRow{logon(one, s.server, s.small), logon(another, s.grown.twin, s.grown.second),
			logon(withIdle, s.grown.idle, s.grown.second), logon(withRoles, s.grown.crowded, s.grown.crowd), logon(withAll, s.registry, s.large),
			logon(withCluster, s.grown.clusters, s.grown.third)}},
		{title: "A query in a session", units: 8000, rows: []*growthRow{transaction(one, s.server, s.small), transaction(another, s.grown.twin, s.grown.second),
			transaction(withIdle, s.grown.idle, s.grown.second), transaction(withAll, s.registry, s.large)}},
	}
	newUser := func(name string, server *server, d *database) *growthRow {
		return of(name, server, d, endedWithin, firstLogons(server))
	}
	g.tables = append(g.tables, &growthTable{title: "A call and a logon of a new user, and its end", units: 25, rows: []*growthRow{
		newUser(one, s.server, s.small), newUser(another, s.grown.twin, s.grown.second), newUser(withAll, s.registry, s.large)}})
	sweeps, err := s.sweeps(spent)
	if err != nil {
		return nil, err
	}
	g.tables = append(g.tables, sweeps)
	if g.curve, err = s.curve(ctx, o, spent[s.grown.crowd]); err != nil {
		return nil, err
	}
	g.idle = s.idleCosts(ctx, spent)
	for _, t := range g.tables {
		if err := t.measure(ctx, o.rounds, g.idle); err != nil {
			return nil, fmt.Errorf("%s: %w", t.title, err)
		}
		t.print()
	}
	return g, nil
}

// endedWithin is the time in which the gateway looks after the role of an ended session.
const endedWithin = 1500 * time.Millisecond

// measure runs all rows in each round, in reverse every second round, so that a machine that gets
// slower or faster affects all alike. It subtracts what a server and its PostgreSQL use in the same
// time without work.
func (t *growthTable) measure(ctx context.Context, rounds int, idle []idleCost) error {
	for round := range rounds + 1 { // the first one warms up
		order := slices.Clone(t.rows)
		if round%2 == 1 {
			slices.Reverse(order)
		}
		for _, row := range order {
			progress("%s, round %d of %d: %s", t.title, round, rounds, row.name)
			began := time.Now()
			before := row.spent()
			if err := row.work(ctx, t.units); err != nil {
				return fmt.Errorf("%s: %w", row.name, err)
			}
			pauseFor(ctx, row.settle)
			if round > 0 {
				n, after, without := time.Duration(t.units), row.spent(), row.without(idle, time.Since(began))
				row.rounds = append(row.rounds, growthCost{(after.daypass - before.daypass - without.daypass) / n, (after.database - before.database - without.database) / n})
			}
		}
	}
	return ctx.Err()
}

// without returns what the row's server and database use without work in the time d.
func (row *growthRow) without(idle []idleCost, d time.Duration) (c growthCost) {
	for _, one := range idle {
		if row.server != nil && one.server == row.server {
			c.daypass = time.Duration(one.daypass.Seconds() * float64(d))
		}
		if row.on != nil && one.on == row.on {
			c.database = time.Duration(one.database.Seconds() * float64(d))
		}
	}
	return c
}

// of returns the median of a cost, and the median of its ratio to the first row's.
func (t *growthTable) of(row *growthRow, pick func(growthCost) time.Duration) (cost time.Duration, ratio float64) {
	var costs, ratios []float64
	for i := range row.rounds {
		c, first := float64(pick(row.rounds[i])), float64(pick(t.rows[0].rounds[i]))
		costs = append(costs, c)
		if first > 0 {
			ratios = append(ratios, c/first)
		}
	}
	if len(ratios) == 0 {
		return time.Duration(median(costs)), 0
	}
	return time.Duration(median(costs)), median(ratios)
}

func ofDaypass(c growthCost) time.Duration  { return c.daypass }
func ofDatabase(c growthCost) time.Duration { return c.database }

func (t *growthTable) lines() [][]string {
	lines := [][]string{{t.title, "Daypass, CPU µs", "ratio", "PostgreSQL, CPU µs", "ratio"}}
	for _, row := range t.rows {
		line := []string{row.name}
		for i, pick := range []func(growthCost) time.Duration{ofDaypass, ofDatabase} {
			if i == 1 && row.database == nil {
				line = append(line, "-", "-")
				continue
			}
			cost, ratio := t.of(row, pick)
			line = append(line, number(float64(cost.Nanoseconds())/1e3), fmt.Sprintf("%.2f", ratio))
		}
		lines = append(lines, line)
	}
	return lines
}

func (t *growthTable) print() {
	var out bytes.Buffer
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', tabwriter.AlignRight)
	for _, line := range t.lines() {
		fmt.Fprintln(w, strings.Join(line, "\t")+"\t")
	}
	w.Flush()
	fmt.Printf("\n%s", out.String())
}

// shared runs units of work, a few at a time. start makes the function that does one.
func shared(ctx context.Context, units int, start func() (work func() error, end func(), err error)) error {
	var done atomic.Int64
	errs := make([]error, 4)
	var group sync.WaitGroup
	for i := range errs {
		group.Go(func() {
			work, end, err := start()
			if err != nil {
				errs[i] = err
				return
			}
			defer end()
			for done.Add(1) <= int64(units) && ctx.Err() == nil && errs[i] == nil {
				errs[i] = work()
			}
		})
	}
	group.Wait()
	return errors.Join(errs...)
}

func calls(e endpoint) func(context.Context, int) error {
	signers := e.signers()
	var next atomic.Int64
	return func(ctx context.Context, units int) error {
		return shared(ctx, units, func() (func() error, func(), error) {
			c := &caller{address: e.address, signers: signers}
			return func() error {
				c.next = int(next.Add(1))
				_, err := c.call(issueForm("bench"))
				return err
			}, c.close, nil
		})
	}
}

func logonsAndEnds(to login) func(context.Context, int) error {
	return func(ctx context.Context, units int) error {
		config, err := to.config()
		if err != nil {
			return err
		}
		return shared(ctx, units, func() (func() error, func(), error) {
			return func() error { _, err := logOn(config); return err }, func() {}, nil
		})
	}
}

// firstLogons makes database users.
func firstLogons(s *server) func(context.Context, int) error {
	return func(ctx context.Context, units int) error {
		for range units {
			s.users++
			to, err := issue(s.endpoint(1), fmt.Sprintf("new%06d", s.users), true)
			if err != nil {
				return err
			}
			config, err := s.login(to, "require").config()
			if err != nil {
				return err
			}
			if _, err := logOn(config); err != nil {
				return err
			}
		}
		return ctx.Err()
	}
}

func transactionsOf(to login) func(context.Context, int) error {
	return func(ctx context.Context, units int) error {
		config, err := to.config()
		if err != nil {
			return err
		}
		return shared(ctx, units, func() (func() error, func(), error) {
			conn, err := open(config)
			if err != nil {
				return nil, nil, err
			}
			return func() error {
				_, err := conn.Exec(ctx, "select 1").ReadAll()
				return err
			}, func() { _ = conn.Close(context.Background()) }, nil
		})
	}
}

// handOvers makes a table in a session without its default role, so that it belongs to the session
// role, and waits until the gateway has given it to the user.
func handOvers(e endpoint, s *server) func(context.Context, int) error {
	number := 0
	return func(ctx context.Context, units int) error {
		for range units {
			number++
			if err := handOverOne(ctx, s, e, fmt.Sprintf("left_%d", number)); err != nil {
				return err
			}
		}
		return nil
	}
}

func handOverOne(ctx context.Context, s *server, e endpoint, table string) error {
	to, err := issue(e, "leaver", true)
	if err != nil {
		return err
	}
	config, err := s.login(to, "disable").config()
	if err != nil {
		return err
	}
	conn, err := open(config)
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, "set role none; create table "+sharedSchema+"."+table+" (n int)").ReadAll()
	if err := errors.Join(err, conn.Close(ctx)); err != nil {
		return err
	}
	if conn, err = pgconn.Connect(ctx, s.site.Database.ConnString(postgres.Superuser, "bench")); err != nil {
		return err
	}
	defer conn.Close(context.Background())
	for {
		result := conn.ExecParams(ctx, "select tableowner from pg_tables where tablename = $1", [][]byte{[]byte(table)}, nil, nil, nil).Read()
		if result.Err != nil {
			return result.Err
		}
		if len(result.Rows) == 1 && string(result.Rows[0][0]) == "leaver" {
			return nil
		}
		pauseFor(ctx, 100*time.Millisecond)
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}

// sweeps measures sweeps of clusters, in this process.
func (s *stack) sweeps(spent map[*database]func() time.Duration) (*growthTable, error) {
	t := &growthTable{title: "A sweep", units: 5}
	for _, row := range []struct {
		name string
		d    *database
	}{{"a few session roles", s.small}, {"10 000 users, 1 000 groups", s.large}} {
		work, err := sweeper(row.d)
		if err != nil {
			return nil, err
		}
		t.rows = append(t.rows, &growthRow{name: row.name, daypass: ownCPU, database: spent[row.d], work: work})
	}
	return t, nil
}

// sweeper returns a function that sweeps a cluster.
func sweeper(d *database) (func(ctx context.Context, units int) error, error) {
	config, err := d.admin()
	if err != nil {
		return nil, err
	}
	admin := handover.New(dbuser.Config{Cluster: "bench", Conn: config})
	return func(ctx context.Context, units int) error {
		for range units {
			if _, err := admin.Sweep(ctx, handover.SweepOptions{Unused: 24 * time.Hour}); err != nil {
				return err
			}
		}
		return nil
	}, nil
}

// idleFor is how long the unused servers are watched: several sweeps of each cluster.
const idleFor = time.Minute

// idleCosts measures what servers cost while they are not used.
func (s *stack) idleCosts(ctx context.Context, spent map[*database]func() time.Duration) []idleCost {
	list := []struct {
		name string
		*server
		*database
	}{{one, s.server, s.small}, {another, s.grown.twin, nil}, {withIdle, s.grown.idle, s.grown.second}, {withCluster, s.grown.clusters, s.grown.third},
		{withAll + ", of which 199 do not answer", s.registry, s.large}, {withRoles, s.grown.crowded, s.grown.crowd}}
	progress("watching idle servers for %v", idleFor)
	costs := make([]idleCost, len(list))
	for i, one := range list {
		costs[i] = idleCost{name: one.name, server: one.server, on: one.database, daypass: -exactCPU(one.PID())}
		if one.database != nil {
			costs[i].database = -spent[one.database]()
		}
	}
	pauseFor(ctx, idleFor)
	for i, one := range list {
		c := &costs[i]
		c.daypass = (c.daypass + exactCPU(one.PID())) / time.Duration(idleFor.Seconds())
		if one.database != nil {
			c.database = (c.database + spent[one.database]()) / time.Duration(idleFor.Seconds())
		}
		c.resident = one.Resident()
		fmt.Printf("idle, %s: Daypass %v, PostgreSQL %v of CPU in a second, %d MiB\n", c.name, c.daypass, c.database, c.resident>>20)
	}
	return costs
}

// growthMarks returns the two lines in the document around the results with a version of PostgreSQL.
func growthMarks(major int) (begin, end []byte) {
	return fmt.Appendf(nil, "<!-- begin: growth on PostgreSQL %d, written by scripts/bench -only growth -->\n", major),
		fmt.Appendf(nil, "<!-- end: growth on PostgreSQL %d -->\n", major)
}

func (r *report) growthMarkdown(b *bytes.Buffer) {
	fmt.Fprintf(b, "\n%s, %s. %s. Medians of %d rounds; others used %.0f %% of the CPUs before the run and %.0f %% after it.", r.began.UTC().Format("2 January 2006"),
		strings.Join(r.versions, ", "), r.machine.model, r.rounds, 100*r.machine.busy[0], 100*r.machine.busy[1])
	if r.note != "" {
		fmt.Fprintf(b, " %s", r.note)
	}
	b.WriteString("\n")
	for _, t := range r.growth.tables {
		writeTable(b, t.lines())
	}
	writeTable(b, r.growth.curve.lines("PostgreSQL", ofDatabase))
	writeTable(b, r.growth.curve.lines("Daypass", ofDaypass))
	fmt.Fprintf(b, "\nThe measurement made session roles too; at the end of each step there were %s.\n", strings.Trim(strings.Join(strings.Fields(fmt.Sprint(r.growth.curve.made)), ", "), "[]"))
	lines := [][]string{{"A second without work", "Daypass, CPU ms", "PostgreSQL, CPU ms", "Daypass, MiB"}}
	for _, c := range r.growth.idle {
		database := "-"
		if c.database > 0 {
			database = number(c.database.Seconds() * 1e3)
		}
		lines = append(lines, []string{c.name, number(c.daypass.Seconds() * 1e3), database, fmt.Sprint(c.resident >> 20)})
	}
	writeTable(b, lines)
	b.WriteString("\n")
}

// writeTable writes a table. Its first line is the head.
func writeTable(b io.Writer, table [][]string) {
	fmt.Fprintln(b)
	for i, line := range table {
		fmt.Fprintf(b, "| %s |\n", strings.Join(line, " | "))
		if i == 0 {
			fmt.Fprintf(b, "|%s\n", strings.Repeat(" --- |", len(line)))
		}
	}
}
