package main

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/daypass/daypass/test/sitetest"
)

// idleSessions opens sessions to a process that was started for this and keeps them idle. It
// measures how much memory the process uses for each session. start returns the process and how to
// log on to it.
func idleSessions(o options, start func(context.Context) (process *sitetest.Process, to login, stop func(), err error)) func(context.Context, cpuTime) (measurement, error) {
	return func(ctx context.Context, _ cpuTime) (m measurement, err error) {
		process, to, stop, err := start(ctx)
		if err != nil {
			return m, err
		}
		defer stop()
		config, err := to.config()
		if err != nil {
			return m, err
		}
		if _, err := logOn(config); err != nil { // do not count what the process allocates only once
			return m, err
		}
		time.Sleep(500 * time.Millisecond)
		before := process.Resident()

		var mu sync.Mutex
		var held []*pgconn.PgConn
		defer func() {
			for _, conn := range held {
				conn.Close(context.Background())
			}
		}()
		var next atomic.Int64
		errs := make([]error, clients)
		var group sync.WaitGroup
		for i := range clients {
			group.Go(func() {
				for next.Add(1) <= int64(o.idle) && errs[i] == nil {
					conn, err := open(config)
					errs[i] = err
					if conn != nil {
						mu.Lock()
						held = append(held, conn)
						mu.Unlock()
					}
				}
			})
		}
		group.Wait()
		if err := errors.Join(errs...); err != nil {
			return m, err
		}
		time.Sleep(idleSettle)
		after := process.Resident()
		m.memory = float64(after-before) / 1024 / float64(len(held))
		return m, nil
	}
}

// idleSettle is how long the sessions have been idle when memory is measured.
const idleSettle = 5 * time.Second
