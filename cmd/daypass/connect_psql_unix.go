//go:build unix

package main

import (
	"fmt"
	"syscall"
)

// startPsql becomes psql: it has the terminal, the signals and the exit code
// to itself. It returns only when that fails.
func startPsql(program string, args, environ []string) error {
	err := syscall.Exec(program, append([]string{"psql"}, args...), environ)
	return fmt.Errorf("starting %s: %w", program, err)
}
