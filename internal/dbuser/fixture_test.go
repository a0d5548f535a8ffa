package dbuser_test

import (
	"testing"

	"github.com/daypass/daypass/test/clustertest"
	"github.com/daypass/daypass/test/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// fixture is what a test of this package starts from.
type fixture = clustertest.Cluster

func plain(t testing.TB, s *pgtest.Server, options ...clustertest.Option) *fixture {
	t.Helper()
	return clustertest.Plain(t, s, options...)
}

func super(t testing.TB, s *pgtest.Server, options ...clustertest.Option) *fixture {
	t.Helper()
	return clustertest.Superuser(t, s, options...)
}

func newFixture(t testing.TB, s *pgtest.Server, login pgtest.Login, options ...clustertest.Option) *fixture {
	t.Helper()
	return clustertest.New(t, s, login, options...)
}

func alone(t *testing.T, s *pgtest.Server, options string) *fixture {
	t.Helper()
	return clustertest.Alone(t, s, options)
}
