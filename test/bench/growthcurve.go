package main

import (
	"context"
	"fmt"
	"strconv"
	"time"
)

// crowdCounts are the numbers of session roles in a cluster for which costs are measured.
var crowdCounts = []int{10, 100, 1_000, crowdCount}

// sweptEvery is how often a server sweeps a cluster, on average.
const sweptEvery = 14250 * time.Millisecond

// growthCurve holds what kinds of work cost with more and more session roles in the cluster.
type growthCurve struct {
	made  []int // session roles at the end of each step, with those that the measurement has made
	kinds []*curveKind
}

type curveKind struct {
	title  string
	units  int // in one round
	settle time.Duration
	work   func(ctx context.Context, units int) error
	own    bool         // the work is done by this process
	costs  []growthCost // medians, for each number of session roles
}

// curve fills the database of the crowd step by step, and measures in between.
func (s *stack) curve(ctx context.Context, o options, database func() time.Duration) (*growthCurve, error) {
	server, d := s.grown.crowded, s.grown.crowd
	sweep, err := sweeper(d)
	if err != nil {
		return nil, err
	}
	c := &growthCurve{kinds: []*curveKind{
		{title: "a sweep", units: 5, work: sweep, own: true},
		{title: "a logon with TLS, and its end", units: 100, settle: endedWithin, work: logonsAndEnds(server.through("require"))},
		{title: "a session that leaves a table behind, until the table is its user's", units: 3, settle: endedWithin, work: handOvers(server.endpoint(1), server)},
		{title: "a call and a logon of a new user, and its end", units: 5, settle: endedWithin, work: firstLogons(server)},
	}}
	for _, n := range crowdCounts {
		if err := d.fill(ctx, n); err != nil {
			return nil, err
		}
		var swept growthCost
		for _, k := range c.kinds {
			cost, err := k.measure(ctx, o.rounds, n, swept, func() growthCost {
				if k.own {
					return growthCost{ownCPU(), database()}
				}
				return growthCost{exactCPU(server.PID()), database()}
			})
			if err != nil {
				return nil, fmt.Errorf("%s with %d session roles: %w", k.title, n, err)
			}
			if k.own {
				swept = cost
			}
			k.costs = append(k.costs, cost)
			fmt.Printf("%d session roles, %s: Daypass %v, PostgreSQL %v\n", n, k.title, cost.daypass, cost.database)
		}
		made, err := d.sessionRoles(ctx)
		if err != nil {
			return nil, err
		}
		c.made = append(c.made, made)
	}
	return c, nil
}

// measure returns the cost of a unit of work, less that of the sweeps that the server makes meanwhile.
func (k *curveKind) measure(ctx context.Context, rounds, n int, swept growthCost, spent func() growthCost) (growthCost, error) {
	var daypass, database []float64
	for round := range rounds + 1 { // the first one warms up
		progress("%d session roles, %s, round %d of %d", n, k.title, round, rounds)
		units := k.units
		if round == 0 {
			units = 1
		}
		began, before := time.Now(), spent()
		if err := k.work(ctx, units); err != nil {
			return growthCost{}, err
		}
		pauseFor(ctx, k.settle)
		if round > 0 {
			sweeps := time.Since(began).Seconds() / sweptEvery.Seconds()
			after := spent()
			daypass = append(daypass, (float64(after.daypass-before.daypass)-sweeps*float64(swept.daypass))/float64(units))
			database = append(database, (float64(after.database-before.database)-sweeps*float64(swept.database))/float64(units))
		}
	}
	return growthCost{time.Duration(median(daypass)), time.Duration(median(database))}, ctx.Err()
}

func (c *growthCurve) lines(who string, pick func(growthCost) time.Duration) [][]string {
	head := []string{who + ", CPU ms, with session roles:"}
	for _, n := range crowdCounts {
		head = append(head, strconv.Itoa(n))
	}
	lines := [][]string{append(head, "ratio")}
	for _, k := range c.kinds {
		line := []string{k.title}
		for _, cost := range k.costs {
			line = append(line, number(pick(cost).Seconds()*1e3))
		}
		first, last := pick(k.costs[0]), pick(k.costs[len(k.costs)-1])
		lines = append(lines, append(line, fmt.Sprintf("%.2f", last.Seconds()/first.Seconds())))
	}
	return lines
}
