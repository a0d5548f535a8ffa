//go:build linux

package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// watch samples the daypass process every second. It is safe for concurrent use.
type watch struct {
	stack *stack

	mu          sync.Mutex // guards the fields below
	resident    int64      // the maximum
	descriptors int        // the maximum
	curve       []point
}

// point is one sample of a process.
type point struct {
	at          time.Time
	life        int
	resident    int64
	descriptors int
	sessions    int
}

func (w *watch) run(ctx context.Context) {
	for pause(ctx, time.Second) {
		w.look()
	}
}

// look takes one sample. A process that is about to end gives none.
func (w *watch) look() {
	c := w.stack.process()
	rss := c.Resident()
	kinds, err := descriptors(c.PID())
	if err != nil || rss == 0 {
		return
	}
	w.stack.mu.Lock()
	number := len(w.stack.lives)
	w.stack.mu.Unlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.resident, w.descriptors = max(w.resident, rss), max(w.descriptors, sum(kinds))
	w.curve = append(w.curve, point{time.Now(), number, rss, sum(kinds), w.stack.front.open()})
}

// quarters describes how the memory of the last process developed.
func (w *watch) quarters() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.curve) == 0 {
		return "not seen"
	}
	last := w.curve[len(w.curve)-1].life
	var sizes []int64
	for _, p := range w.curve {
		if p.life == last {
			sizes = append(sizes, p.resident)
		}
	}
	var medians []string
	for i := range 4 {
		quarter := slices.Clone(sizes[len(sizes)*i/4 : len(sizes)*(i+1)/4])
		if len(quarter) > 0 {
			slices.Sort(quarter)
			medians = append(medians, fmt.Sprint(quarter[len(quarter)/2]>>20))
		}
	}
	return strings.Join(medians, ", ") + " MiB"
}
