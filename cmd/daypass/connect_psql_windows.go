package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
)

// startPsql runs psql and exits with psql's exit code. It leaves Ctrl-C to psql, where it
// cancels the query.
func startPsql(program string, args, environ []string) error {
	signal.Ignore(os.Interrupt)
	cmd := exec.Command(program, args...)
	cmd.Env = environ
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return &exitError{code: exit.ExitCode()}
	}
	if err != nil {
		return fmt.Errorf("starting %s: %w", program, err)
	}
	return nil
}
