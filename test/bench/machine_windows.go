package main

import (
	"errors"
	"time"
)

// pageFault returns an error: the CPU time of a page fault is not measured on Windows.
func pageFault() (time.Duration, error) {
	return 0, errors.New("the CPU time of a page fault is not measured on Windows: run the benchmark on Linux")
}

// ownCPU returns zero, as exactCPU does.
func ownCPU() time.Duration { return 0 }
