package main

import "fmt"

// goal is a figure that Daypass should reach. The values come from the issue that asked for them.
// Each is a ratio unless unit says otherwise.
type goal struct {
	name       string
	title      string // of the result
	of         pick
	a, b       string // the compared targets
	join       func(a, b float64) float64
	least, aim float64
	lower      bool   // lower is better
	growth     bool   // measured with many of everything
	unit       string // "x", "KiB", "ms", "%"
}

func goals() []goal {
	list := []goal{
		{name: "credentials per second against moto, its checks on", title: "Credentials issued", of: rate, a: daypass, b: motos, join: ratio, least: 60, aim: 100},
		{name: "credentials per second against a fixed answer of net/http", title: "Credentials issued", of: rate, a: daypass, b: hellos, join: ratio, least: 0.40, aim: 0.45},
		{name: "issue p99 against moto", title: "Credentials issued", of: p99, a: daypass, b: motos, join: ratio, least: 0.05, aim: 0.04, lower: true},
		{name: "logons per second, TLS, against direct with SCRAM", title: "Logons, TLS, 8 clients", of: rate, a: daypass, b: direct, join: ratio, least: 1.15, aim: 1.3},
		{name: "CPU per logon against PgBouncer with sessions of one use, TLS", title: "Logons, TLS, 8 clients", of: cpu, a: daypass, b: onceOnly, join: ratio, least: 1.1, aim: 1.0, lower: true},
		{name: "logon p50, prewarmed, against direct", title: idleLogons, of: p50, a: prewarmed, b: direct, join: ratio, least: 0.6, aim: 0.35, lower: true},
		{name: "logons per second with parked sessions, TLS, 8 clients, against direct", title: parkedLogons, of: rate, a: parked, b: direct, join: ratio, least: 3, aim: 8},
		{name: "logon p50 with parked sessions, 8 clients, against direct", title: parkedLogons, of: p50, a: parked, b: direct, join: ratio, least: 0.25, aim: 0.125, lower: true},
		{name: "logon p50 with parked sessions, 1 client, against direct", title: idleParked, of: p50, a: parked, b: direct, join: ratio, least: 0.25, aim: 0.125, lower: true},
		{name: "logon p99, against direct", title: idleLogons, of: p99, a: daypass, b: direct, join: ratio, lower: true},
	}
	for _, mode := range modes {
		for _, to := range []string{direct, bouncer} {
			list = append(list, goal{name: "latency that one query gains, " + transport(mode) + ", over " + to, title: "One query at a time, " + transport(mode) + ", 1 client",
				of: p50, a: daypass, b: to, join: difference, lower: true, unit: "ms"})
		}
	}
	for _, mode := range modes {
		list = append(list, goal{name: "transactions per second against PgBouncer with sessions of one use, " + transport(mode),
			title: "Transactions, " + transport(mode) + ", 8 clients", of: rate, a: daypass, b: onceOnly, join: ratio, least: 0.9, aim: 1.0})
		list = append(list, goal{name: "transactions per second against PgBouncer, " + transport(mode),
			title: "Transactions, " + transport(mode) + ", 8 clients", of: rate, a: daypass, b: bouncer, join: ratio, least: 0.9, aim: 1.0})
	}
	for _, row := range []struct {
		title      string
		least, aim float64
	}{{"plain, 8 clients", 1.2, 1.0}, {"plain, 64 clients", 1.0, 0.8}, {"TLS, 8 clients", 1.25, 1.1}} {
		list = append(list, goal{name: "CPU per transaction against PgBouncer, " + row.title, title: "Transactions, " + row.title, of: cpu,
			a: daypass, b: bouncer, join: ratio, least: row.least, aim: row.aim, lower: true})
	}
	for _, way := range []string{"out", "in"} {
		for _, mode := range modes {
			title := "COPY " + way + ", " + transport(mode)
			list = append(list, goal{name: title + ", against direct", title: title, of: rate, a: daypass, b: direct, join: ratio, least: 0.95, aim: 1.0})
		}
	}
	for _, way := range []string{"out", "in"} {
		for _, mode := range modes {
			title := "COPY " + way + ", " + transport(mode)
			list = append(list, goal{name: "CPU per GB against PgBouncer, " + title, title: title, of: cpu, a: daypass, b: bouncer, join: ratio, least: 0.7, aim: 0.5, lower: true})
		}
	}
	for _, row := range []struct {
		mode       string
		least, aim float64
	}{{"plain", 14, 4}, {"TLS", 40, 20}} {
		list = append(list, goal{name: "resident memory of an idle session, " + row.mode, title: "Resident memory of an idle session, " + row.mode,
			of: memory, a: daypass, b: daypass, join: func(a, _ float64) float64 { return a }, least: row.least, aim: row.aim, lower: true, unit: "KiB"})
	}
	list = append(list, goal{name: "first logon of a new user, above that of a known one", title: "First logon of a database user, TLS, one client",
		of: p50, a: unknown, b: known, join: difference, least: 2, aim: 1, lower: true, unit: "ms"})
	for _, what := range []string{"credentials issued", "logons, TLS", "transactions, plain"} {
		list = append(list, goal{name: what + ": 10 000 users, 1 000 groups, 200 clusters against one of each", title: "Scale: " + what,
			of: rate, a: many, b: one, join: ratio, least: 0.98, aim: 1.0, growth: true})
	}
	for _, n := range []int{100, largeSize.users} {
		list = append(list, goal{name: "credentials issued: " + principalCount(n) + " against 1", title: "Credentials issued to principals in turn, 10 000 registered",
			of: rate, a: principalCount(n), b: principalCount(1), join: ratio, least: 0.98, aim: 1.0, growth: true})
	}
	return list
}

// value returns the run's figure for the goal, if it was measured.
func (g goal) value(results []*result) (float64, bool) {
	for _, r := range results {
		if r.title == g.title {
			return r.compare(g.a, g.b, g.of, g.join)
		}
	}
	return 0, false
}

func (g goal) format(v float64) string {
	if v == 0 && g.least == 0 {
		return "-" // the goal has no marks
	}
	sign := ""
	if g.unit == "ms" && v > 0 {
		sign = "+"
	}
	unit := " " + g.unit
	if g.unit == "" {
		unit = "x"
	}
	if v >= 10 && g.unit == "" {
		return fmt.Sprintf("%.0f%s", v, unit)
	}
	return fmt.Sprintf("%s%.3g%s", sign, v, unit)
}

// verdict reports which of the two marks was reached.
func (g goal) verdict(v float64) string {
	reached := func(mark float64) bool {
		if g.lower {
			return v <= mark
		}
		return v >= mark
	}
	switch {
	case g.least == 0:
		return "-"
	case reached(g.aim):
		return "aim"
	case reached(g.least):
		return "yes"
	}
	return "no"
}
