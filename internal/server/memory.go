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
	// TidyMemory acts if less than tidyQuiet was allocated within tidyInterval, and
	// more than tidyWorth since it last acted.
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

// TidyMemory runs until ctx ends. In quiet times after heavy load it collects garbage
// and returns memory to the system, because a logon takes ten times the memory of an
// open session and an idle server would keep that for minutes. Under load it raises
// GOGC for a small heap, which would otherwise be collected all the time, unless the
// environment sets GOGC.
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

// gcPercent returns GOGC for the size of the live heap, in steps, so that it seldom
// changes: a change stops the world for a moment.
func gcPercent(live uint64) int {
	const step = 50
	percent := slack * 100 / max(live, 1)
	return int(min(max(percent, 100), mostPercent)) / step * step
}
