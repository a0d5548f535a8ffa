//go:build unix

package main

import (
	"fmt"
	"syscall"
)

// startPsql replaces this process with psql, so that psql gets the terminal and the signals, and
// sets the exit code. It returns only on failure.
func startPsql(program string, args, environ []string) error {
	err := syscall.Exec(program, append([]string{"psql"}, args...), environ)
	return fmt.Errorf("starting %s: %w", program, err)
}
