//go:build !linux

package main

import "time"

// exactCPU returns zero: growth is measured on Linux.
func exactCPU(int) time.Duration { return 0 }

// familyCPU returns zero, as exactCPU does.
func familyCPU(int) time.Duration { return 0 }
