package main

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/daypass/daypass/test/sitetest"
)

// keys lists the values of -only, in the order of the report.
var keys = []string{"decision", "issue", "logon", "latency", "parked", "query", "tps", "copy", "memory", "scale", "newuser", "growth"}

// The targets' names.
const (
	hellos    = "net/http, fixed answer"
	motos     = "moto"
	daypass   = "Daypass"
	direct    = "direct"
	bouncer   = "PgBouncer"
	onceOnly  = "PgBouncer, one use"
	prewarmed = "Daypass, prewarmed"
	parked    = "Daypass, parked"
	known     = "a known user"
	unknown   = "a new user"
	one       = "one of each"
	many      = "10 000 users, 1 000 groups, 200 clusters"
)

func (s *stack) figures(o options) []figure {
	list := []figure{s.decision(), s.issue(o), s.logon(o), s.latency(o), s.park(o, parkedLogons, clients, 0), s.park(o, idleParked, 1, idlePause)}
	for _, mode := range modes {
		list = append(list, s.query(o, mode))
	}
	for _, mode := range modes {
		list = append(list, s.tps(o, clients, mode))
	}
	list = append(list, s.tps(o, 64, modes[0]))
	for _, mode := range modes {
		list = append(list, s.copy(o, false, mode), s.copy(o, true, mode))
	}
	for _, mode := range modes {
		list = append(list, s.memory(o, mode))
	}
	if s.registry != nil {
		list = append(list, s.scale(o)...)
	}
	// This figure comes last because it leaves thousands of users behind.
	return append(list, figure{key: "newuser", title: "First logon of a database user, TLS, one client", unit: "per s", targets: []target{
		{name: known, measure: newUsers(o, s.server, true)},
		{name: unknown, measure: newUsers(o, s.server, false)},
	}})
}

// modes lists plain and TLS, by their libpq names.
var modes = []string{"disable", "require"}

func transport(mode string) string {
	if mode == "disable" {
		return "plain"
	}
	return "TLS"
}

func (s *stack) issue(o options) figure {
	f := figure{key: "issue", title: "Credentials issued", unit: "per s", targets: []target{
		{hellos, s.hello.CPU, requests(o, endpoint{s.at, s.server.keys}, issueForm("bench"))},
	}}
	if s.moto != nil {
		f.targets = append(f.targets, target{motos, s.moto.CPU, requests(o, s.moto.endpoint, issueForm("bench"))})
	}
	f.targets = append(f.targets, target{daypass, s.server.CPU, requests(o, s.server.endpoint(1), issueForm("bench"))})
	return f
}

func (s *stack) logon(o options) figure {
	f := figure{key: "logon", title: "Logons, TLS, 8 clients", unit: "per s", targets: []target{
		{name: direct, measure: logons(o, clients, 0, s.small.direct("require"))},
	}}
	if s.once != nil {
		f.targets = append(f.targets, target{onceOnly, s.once.CPU, logons(o, clients, 0, s.once.login("require"))})
	}
	f.targets = append(f.targets, target{daypass, s.server.CPU, logons(o, clients, 0, s.server.through("require"))})
	return f
}

// idleLogons is the title of the logons with pauses in between.
const idleLogons = "Logons, TLS, 1 client with pauses of 25 ms"

// idlePause is the pause between these logons.
const idlePause = 25 * time.Millisecond

// latency measures logons with pauses in between, which leave time to start sessions ahead.
func (s *stack) latency(o options) figure {
	const pause = idlePause
	f := figure{key: "latency", title: idleLogons, unit: "per s", targets: []target{
		{name: direct, measure: logons(o, 1, pause, s.small.direct("require"))},
	}}
	if s.once != nil {
		f.targets = append(f.targets, target{onceOnly, s.once.CPU, logons(o, 1, pause, s.once.login("require"))})
	}
	f.targets = append(f.targets, target{daypass, s.server.CPU, logons(o, 1, pause, s.server.through("require"))})
	if s.ahead != nil {
		f.targets = append(f.targets, target{prewarmed, s.ahead.CPU, logons(o, 1, pause, s.ahead.through("require"))})
	}
	return f
}

// The titles of the logons that get a parked session.
const (
	parkedLogons = "Logons with parked sessions, TLS, 8 clients"
	idleParked   = "Logons with parked sessions, TLS, 1 client with pauses of 25 ms"
)

// park measures logons that get the session of an earlier logon of their principal. PgBouncer, which
// keeps its sessions too, gives them to everyone with the same user and database.
func (s *stack) park(o options, title string, n int, pause time.Duration) figure {
	f := figure{key: "parked", title: title, unit: "per s", targets: []target{
		{name: direct, measure: logons(o, n, pause, s.small.direct("require"))},
	}}
	if s.pgbouncer != nil {
		f.targets = append(f.targets, target{bouncer, s.pgbouncer.CPU, logons(o, n, pause, s.pgbouncer.login("require"))})
	}
	if s.parked != nil {
		f.targets = append(f.targets, target{parked, s.parked.CPU, logons(o, n, pause, s.parked.through("require"))})
	}
	return f
}

// query measures the latency of one query at a time.
func (s *stack) query(o options, mode string) figure {
	f := figure{key: "query", title: "One query at a time, " + transport(mode) + ", 1 client", unit: "per s", targets: []target{
		{name: direct, measure: queries(o, s.small.direct(mode))},
	}}
	if s.pgbouncer != nil {
		f.targets = append(f.targets, target{bouncer, s.pgbouncer.CPU, queries(o, s.pgbouncer.login(mode))})
	}
	f.targets = append(f.targets, target{daypass, s.server.CPU, queries(o, s.server.through(mode))})
	return f
}

// tps measures PgBouncer twice: with sessions that it keeps for the next client, and with one
// session for each client, as all other targets have. All are warm when the clock starts.
func (s *stack) tps(o options, n int, mode string) figure {
	f := figure{key: "tps", title: fmt.Sprintf("Transactions, %s, %d clients", transport(mode), n), unit: "per s", targets: []target{
		{name: direct, measure: s.small.transactions(o, n, s.small.direct(mode))},
	}}
	if s.pgbouncer != nil {
		f.targets = append(f.targets, target{bouncer, s.pgbouncer.CPU, s.small.transactions(o, n, s.pgbouncer.login(mode))})
		f.targets = append(f.targets, target{onceOnly, s.once.CPU, s.small.transactions(o, n, s.once.login(mode))})
	}
	f.targets = append(f.targets, target{daypass, s.server.CPU, s.small.transactions(o, n, s.server.through(mode))})
	return f
}

func (s *stack) copy(o options, into bool, mode string) figure {
	way := "out"
	if into {
		way = "in"
	}
	f := figure{key: "copy", title: "COPY " + way + ", " + transport(mode), unit: "MB/s", targets: []target{
		{name: direct, measure: copies(o, into, s.small.direct(mode))},
	}}
	if s.pgbouncer != nil {
		f.targets = append(f.targets, target{bouncer, s.pgbouncer.CPU, copies(o, into, s.pgbouncer.login(mode))})
	}
	f.targets = append(f.targets, target{daypass, s.server.CPU, copies(o, into, s.server.through(mode))})
	return f
}

// memory starts a fresh process for each measurement.
func (s *stack) memory(o options, mode string) figure {
	f := figure{key: "memory", title: "Resident memory of an idle session, " + transport(mode), unit: "per s", once: true}
	if s.pgbouncer != nil {
		f.targets = append(f.targets, target{name: bouncer, measure: idleSessions(o, func(ctx context.Context) (*sitetest.Process, login, func(), error) {
			p, err := startPgBouncer(ctx, o, filepath.Join(s.dir, "pgbouncer-idle"), s.small, false)
			if err != nil {
				return nil, login{}, nil, err
			}
			return p.Process, p.login(mode), p.stop, nil
		})})
	}
	f.targets = append(f.targets, target{name: daypass, measure: idleSessions(o, func(ctx context.Context) (*sitetest.Process, login, func(), error) {
		// The directory keeps its keys, so that the passwords of session roles stay the same.
		server, err := startServer(ctx, o, filepath.Join(s.dir, "daypass-idle"), s.small, serverOptions{size: smallSize})
		if err != nil {
			return nil, login{}, nil, err
		}
		to, err := issue(server.endpoint(1), "idle", true)
		if err != nil {
			server.stop()
			return nil, login{}, nil, err
		}
		return server.Process, server.login(to, mode), server.stop, nil
	})})
	return f
}

// scale compares a server with one of everything and a server with many of everything.
func (s *stack) scale(o options) []figure {
	mode := "disable"
	principals := figure{key: "scale", title: "Credentials issued to principals in turn, 10 000 registered", unit: "per s"}
	for _, n := range []int{1, 100, largeSize.users} {
		principals.targets = append(principals.targets, target{principalCount(n), s.registry.CPU, requests(o, s.registry.endpoint(n), issueForm("bench"))})
	}
	return []figure{
		{key: "scale", title: "Scale: credentials issued", unit: "per s", targets: []target{
			{one, s.server.CPU, requests(o, s.server.endpoint(1), issueForm("bench"))},
			{many, s.registry.CPU, requests(o, s.registry.endpoint(1), issueForm("bench"))},
		}},
		principals,
		{key: "scale", title: "Scale: logons, TLS", unit: "per s", targets: []target{
			{one, s.server.CPU, logons(o, clients, 0, s.server.through("require"))},
			{many, s.registry.CPU, logons(o, clients, 0, s.registry.through("require"))},
		}},
		{key: "scale", title: "Scale: transactions, plain", unit: "per s", targets: []target{
			{one, s.server.CPU, s.small.transactions(o, clients, s.server.through(mode))},
			{many, s.registry.CPU, s.large.transactions(o, clients, s.registry.through(mode))},
		}},
	}
}

func principalCount(n int) string {
	if n == 1 {
		return "1 principal"
	}
	return fmt.Sprintf("%d principals", n)
}
