package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// exactCPU returns the CPU time that a process has used, to the nanosecond.
func exactCPU(pid int) time.Duration {
	const schedulersClock = 2 // CPUCLOCK_SCHED, the clock of a whole process
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|schedulersClock), &t); err != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

// familyCPU returns the CPU time that a process and its children have used, those that have ended
// included.
func familyCPU(pid int) time.Duration {
	spent := exactCPU(pid)
	if fields := stat(pid); fields != nil {
		for _, field := range fields[13:15] { // of children that have ended, in ticks
			ticks, _ := strconv.Atoi(field)
			spent += time.Duration(ticks) * 10 * time.Millisecond
		}
	}
	entries, _ := os.ReadDir("/proc")
	for _, entry := range entries {
		child, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		if fields := stat(child); fields != nil && fields[1] == strconv.Itoa(pid) {
			spent += exactCPU(child)
		}
	}
	return spent
}

// stat returns the fields of a process's status from the third on, or nil if it has ended.
func stat(pid int) []string {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	fields := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
	if len(fields) < 15 {
		return nil
	}
	return fields
}
