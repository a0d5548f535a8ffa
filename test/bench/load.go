package main

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// client does one unit of work and returns how long it took. Zero stands for the duration of the
// call.
type client struct {
	work func() (time.Duration, error)
	end  func()
}

// closedLoop runs clients that each do one unit of work after the other, with a pause in
// between. Work during the warm-up is not counted.
func closedLoop(ctx context.Context, o options, n int, pause time.Duration, spent cpuTime, start func(i int) (client, error)) (measurement, error) {
	warmUp := o.warm / 4 // the figures measured here have no sessions that warm up for seconds
	ctx, cancel := context.WithTimeout(ctx, warmUp+o.duration)
	defer cancel()
	latencies := make([][]time.Duration, n)
	errs := make([]error, n)
	var cpu atomic.Int64 // nanoseconds spent before the clock started
	began := time.Now().Add(warmUp)
	warm := time.AfterFunc(warmUp, func() { cpu.Store(int64(spent.now())) })
	var group sync.WaitGroup
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
				if from.After(began) {
					latencies[i] = append(latencies[i], took)
				}
				if pause > 0 {
					time.Sleep(pause)
				}
			}
		})
	}
	group.Wait()
	elapsed := time.Since(began)
	if err := errors.Join(errs...); err != nil {
		warm.Stop()
		return measurement{}, err
	}
	all := slices.Concat(latencies...)
	if len(all) == 0 {
		return measurement{}, errors.New("nothing was done in the time")
	}
	slices.Sort(all)
	m := measurement{rate: float64(len(all)) / elapsed.Seconds(), p50: all[len(all)/2], p99: all[len(all)*99/100]}
	m.cpu = time.Duration(float64(spent.now()-time.Duration(cpu.Load())) / float64(len(all)))
	return m, nil
}
