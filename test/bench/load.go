package main

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

// client does one unit of work and says how long that took. Zero means: as long
// as the call.
type client struct {
	work func() (time.Duration, error)
	end  func()
}

// closedLoop runs clients that do one unit after the other, with a pause between
// them, until the time is over.
func closedLoop(ctx context.Context, n int, d, pause time.Duration, start func(i int) (client, error)) (measurement, error) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	latencies := make([][]time.Duration, n)
	errs := make([]error, n)
	var group sync.WaitGroup
	began := time.Now()
	for i := range n {
		group.Go(func() {
			c, err := start(i)
			if err != nil {
				errs[i] = err
				return
			}
			if c.end != nil {
				defer c.end()
			}
			for ctx.Err() == nil {
				from := time.Now()
				took, err := c.work()
				if err != nil {
					errs[i] = err
					return
				}
				if took == 0 {
					took = time.Since(from)
				}
				latencies[i] = append(latencies[i], took)
				if pause > 0 {
					time.Sleep(pause)
				}
			}
		})
	}
	group.Wait()
	elapsed := time.Since(began)
	if err := errors.Join(errs...); err != nil {
		return measurement{}, err
	}
	all := slices.Concat(latencies...)
	if len(all) == 0 {
		return measurement{}, errors.New("nothing was done in the time")
	}
	slices.Sort(all)
	return measurement{
		rate:  float64(len(all)) / elapsed.Seconds(),
		p50:   all[len(all)/2],
		p99:   all[len(all)*99/100],
		units: float64(len(all)),
	}, nil
}
