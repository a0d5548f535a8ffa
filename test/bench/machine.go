package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// machine describes where rates were measured: the hardware, and the cost of a page fault and a
// logon on it. On a virtual machine with nested paging, page faults are expensive, and so is
// everything that starts processes: logons, and a backend's first seconds.
type machine struct {
	model string
	fault time.Duration // CPU time of one page fault, on a page of fresh memory
	start time.Duration // of a process that does nothing; median
	logon time.Duration // direct, plain, one at a time; median
	// busy is the share of the CPUs that others used in the second before the run, and in the
	// second after it.
	busy [2]float64
}

// idleEnough is the share of the CPUs that others may use if a run's figures are to count.
const idleEnough = 0.1

// kind classifies the machine by the cost of its page faults. Figures of the two kinds cannot be
// compared.
func (m *machine) kind() string {
	if m.fault > 1500*time.Nanosecond {
		return "dear"
	}
	return "cheap"
}

// quiet reports whether the machine was idle except for the run.
func (m *machine) quiet() string {
	if max(m.busy[0], m.busy[1]) <= idleEnough {
		return fmt.Sprintf("The machine was idle: others used %.0f %% of its CPUs before the run and %.0f %% after it.", 100*m.busy[0], 100*m.busy[1])
	}
	return fmt.Sprintf("**The machine was not idle**: others used %.0f %% of its CPUs before the run and %.0f %% after it. These figures do not count.", 100*m.busy[0], 100*m.busy[1])
}

func (m *machine) costs() string {
	return fmt.Sprintf("Page faults are %s here: %.2f µs of CPU each. A process that does nothing takes %.2f ms, a direct logon %.2f ms.",
		m.kind(), float64(m.fault.Nanoseconds())/1e3, m.start.Seconds()*1e3, m.logon.Seconds()*1e3)
}

// look measures everything that needs no server.
func (m *machine) look(ctx context.Context) error {
	m.model = model()
	m.busy[0] = busy(ctx)
	fault, err := pageFault()
	if err != nil {
		return err
	}
	m.fault = fault
	var starts []time.Duration
	for range 51 {
		began := time.Now()
		if err := exec.CommandContext(ctx, "true").Run(); err != nil {
			return err
		}
		starts = append(starts, time.Since(began))
	}
	slices.Sort(starts)
	m.start = starts[len(starts)/2]
	return nil
}

// logOn measures a direct logon.
func (m *machine) logOn(d *database) error {
	config, err := d.direct("disable").config()
	if err != nil {
		return err
	}
	var took []time.Duration
	for range 21 {
		one, err := logOn(config)
		if err != nil {
			return err
		}
		took = append(took, one)
	}
	slices.Sort(took)
	m.logon = took[len(took)/2]
	return nil
}

// busy returns the share of the CPUs that is used during a second in which this process sleeps, on
// Linux.
func busy(ctx context.Context) float64 {
	before, idleBefore := ticks()
	select {
	case <-time.After(time.Second):
	case <-ctx.Done():
	}
	after, idleAfter := ticks()
	if after == before {
		return 0
	}
	return 1 - float64(idleAfter-idleBefore)/float64(after-before)
}

// ticks returns the clock ticks of all CPUs since the machine's start, and how many of them were
// idle.
func ticks() (all, idle int64) {
	data, _ := os.ReadFile("/proc/stat")
	first, _, _ := strings.Cut(string(data), "\n")
	for i, field := range strings.Fields(first) {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil || i > 8 {
			continue // the line's name; or time of guests, which is already counted
		}
		all += n
		if i == 4 || i == 5 { // idle, or waiting for a disk
			idle += n
		}
	}
	return all, idle
}

func model() string {
	model := runtime.GOARCH
	if data, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(data)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	return fmt.Sprintf("%s, %d CPUs, %s %s", model, runtime.NumCPU(), runtime.GOOS, strings.TrimSpace(string(kernel)))
}
