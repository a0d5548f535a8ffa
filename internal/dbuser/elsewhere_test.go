package dbuser_test

import (
	"testing"

	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/test/clustertest"
	"github.com/daypass/daypass/test/pgtest"
)

// TestDatabasesOfOthers: a user with CREATEDB keeps no one from logging on to another database, with
// the name, the settings or the locks of their own database.
func TestDatabasesOfOthers(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		f := alone(t, s, "CREATEROLE")
		mallory := f.Login(t, "mallory", "createdb")
		owner := pgtest.Connect(t, f.ConnString(mallory, "postgres"))
		locked := f.Name("locked")
		clustertest.ExecAll(t, owner, "create database hers encoding 'SQL_ASCII' template template0 locale 'C'",
			"create database "+locked, "alter database "+locked+" set search_path = trap")
		inside := pgtest.Connect(t, f.ConnString(mallory, "hers"))
		clustertest.ExecAll(t, inside, "set client_encoding = SQL_ASCII",
			"create database \"caf\xe9\"", "alter database \"caf\xe9\" set search_path = trap")
		clustertest.ExecAll(t, owner, "begin", "alter database "+locked+" rename to "+locked+"2") // stays open

		alice, analysts := "alice", "analysts"
		f.Run("create role %s login", alice)
		f.Run("create role %s", analysts)
		f.LendAlone(alice, analysts)
		role, err := f.Admin.Ensure(t.Context(), dbuser.Need{User: alice, Groups: []string{analysts}, Database: "postgres"})
		if err != nil {
			t.Fatalf("Ensure: %v", err)
		}
		f.Admin.Opened(role.Name)
		f.Logon(role, "postgres")
	})
}
