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
	// tidyMemory acts when two conditions hold. Within the last tidyInterval the process allocated
	// less than tidyQuiet or, for a large heap, less than 1/quietPart of it: idle sessions allocate a
	// little every second. And since tidyMemory last acted, the process allocated more than tidyWorth
	// and worthTimes of what the heap has above smallHeap. Tidying takes three collections, so with a
	// large heap it would otherwise cost more than a light load itself.
	tidyQuiet    = 256 << 10
	quietPart    = 32
	tidyWorth    = 4 << 20
	worthTimes   = 4
	smallHeap    = 8 << 20
	tidyInterval = time.Second
	// shrinkTime is how long idle sessions may take to go on in new goroutines.
	shrinkTime = 200 * time.Millisecond

	// slack is the least that may be allocated between two collections. The live heap is a
	// few megabytes, and under load as much again is allocated within some hundredths of a
	// second, so with the default GOGC of 100 the collector would run all the time.
	slack = 32 << 20
	// mostPercent limits GOGC, since a heap can grow a lot within tidyInterval.
	mostPercent = 400
)

// tidyMemory runs until ctx ends. In quiet times after heavy load it collects garbage
// and returns memory to the system, because a logon takes ten times the memory of an
// open session and an idle server would keep that for minutes. Under load it raises
// GOGC for a small heap, which would otherwise be collected all the time, unless the
// environment sets GOGC.
//
// shrink is called in quiet times, between the collection and the return of memory.
func tidyMemory(ctx context.Context, shrink func()) {
	heap := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}, {Name: "/gc/heap/live:bytes"}}
	_, told := os.LookupEnv("GOGC")
	ticker := time.NewTicker(tidyInterval)
	defer ticker.Stop()
	var before, tidied uint64 // bytes allocated at the last tick, and when memory was last tidied
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
		if isTidyTime(allocated-before, allocated-tidied, live) {
			// Twice, because a collection at most halves a stack.
			runtime.GC()
			runtime.GC()
			shrink()
			select {
			case <-ctx.Done():
				return
			case <-time.After(shrinkTime):
			}
			debug.FreeOSMemory()
			tidied = allocated
		}
		before = allocated
	}
}

// isTidyTime decides with the bytes that were allocated within tidyInterval and since memory was
// last tidied.
func isTidyTime(lately, since, live uint64) bool {
	return lately < max(tidyQuiet, live/quietPart) && since > max(tidyWorth, worthTimes*(max(live, smallHeap)-smallHeap))
}

// gcPercent returns GOGC for the size of the live heap, in steps, so that it seldom
// changes: a change stops the world for a moment.
func gcPercent(live uint64) int {
	const step = 50
	percent := slack * 100 / max(live, 1)
	return int(min(max(percent, 100), mostPercent)) / step * step
}
