//go:build unix

package main

import (
	"fmt"
	"slices"
	"syscall"
	"time"
)

// pageFault returns the CPU time of one page fault; the median of five measurements.
func pageFault() (time.Duration, error) {
	const pages, size = 1 << 14, 4096
	var faults []time.Duration
	for range 5 {
		memory, err := syscall.Mmap(-1, 0, pages*size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
		if err != nil {
			return 0, fmt.Errorf("mapping memory: %w", err)
		}
		if err := avoidHugePages(memory); err != nil {
			return 0, fmt.Errorf("asking for small pages: %w", err)
		}
		began := ownCPU()
		for at := 0; at < len(memory); at += size {
			memory[at] = 1
		}
		faults = append(faults, (ownCPU()-began)/pages)
		if err := syscall.Munmap(memory); err != nil {
			return 0, fmt.Errorf("unmapping memory: %w", err)
		}
	}
	slices.Sort(faults)
	return faults[len(faults)/2], nil
}

// ownCPU returns the CPU time that this process has used. It does not grow while others have the
// CPUs.
func ownCPU() time.Duration {
	var usage syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
