package main

import (
	"errors"
	"fmt"
	"os/exec"
)

// findPsql finds psql before a credential is requested.
func findPsql(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err == nil {
		return path, nil
	}
	if !errors.Is(err, exec.ErrNotFound) {
		return "", fmt.Errorf("finding psql: %w", err)
	}
	return "", fmt.Errorf(`there is no program %q in PATH. Install PostgreSQL's client programs:

    Debian, Ubuntu    apt install postgresql-client
    Fedora, RHEL      dnf install postgresql
    macOS             brew install libpq
    Windows           winget install PostgreSQL.PostgreSQL

or say where it is with --psql PATH, or get what another program needs with
--print env, uri, dsn, json or pgpass`, name)
}
