package main

import (
	"context"
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
)

// tidyMemory collects and gives back memory in the quiet after much was done, and
// returns when ctx ends. Beginning a session takes ten times what keeping it does,
// and an idle server would have its stacks and buffers for minutes.
func tidyMemory(ctx context.Context) {
	allocations := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	ticker := time.NewTicker(tidyInterval)
	defer ticker.Stop()
	var before, tidied uint64 // allocated by then
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		metrics.Read(allocations)
		allocated := allocations[0].Value.Uint64()
		if allocated-before < tidyQuiet && allocated-tidied > tidyWorth {
			// Twice, since a stack shrinks by half at a time.
			runtime.GC()
			debug.FreeOSMemory()
			tidied = allocated
		}
		before = allocated
	}
}
