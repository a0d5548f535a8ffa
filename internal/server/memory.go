package server

import (
	"context"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// tidyQuiet is how little has to be allocated in tidyInterval for the server
	// to have time to tidy up, and tidyWorth how much since the last time for it
	// to be worth it.
	tidyQuiet    = 256 << 10
	tidyWorth    = 4 << 20
	tidyInterval = time.Second

	// slack is how much may be allocated between two collections at least. What
	// lives here is some megabytes, and the usual twice of that is allocated again
	// in some hundredths of a second.
	slack = 32 << 20
	// mostPercent keeps a heap that grows within tidyInterval in bounds.
	mostPercent = 400
)

// TidyMemory collects and gives back memory in the quiet after much was done, and
// returns when ctx ends. Beginning a session takes ten times what keeping it does,
// and an idle server would have its stacks and buffers for minutes. Under load it
// sees to it that a small heap is not collected all the time, unless GOGC says how
// often that is to be.
func TidyMemory(ctx context.Context) {
	heap := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}, {Name: "/gc/heap/live:bytes"}}
	_, told := os.LookupEnv("GOGC")
	ticker := time.NewTicker(tidyInterval)
	defer ticker.Stop()
	var before, tidied uint64 // allocated by then
	percent := 100
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		metrics.Read(heap)
		allocated, live := heap[0].Value.Uint64(), heap[1].Value.Uint64()
		if next := gcPercent(live); !told && next != percent {
			debug.SetGCPercent(next)
			percent = next
		}
		if allocated-before < tidyQuiet && allocated-tidied > tidyWorth {
			// Twice, since a stack shrinks by half at a time.
			runtime.GC()
			debug.FreeOSMemory()
			tidied = allocated
		}
		before = allocated
	}
}

// gcPercent is the setting for a heap of which so much lives, in steps, so that
// it seldom changes: changing it stops the world for a moment.
func gcPercent(live uint64) int {
	const step = 50
	percent := slack * 100 / max(live, 1)
	return int(min(max(percent, 100), mostPercent)) / step * step
}
