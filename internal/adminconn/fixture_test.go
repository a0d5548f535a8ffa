package adminconn_test

import (
	"testing"

	"github.com/daypass/daypass/test/clustertest"
	"github.com/daypass/daypass/test/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// fixture is a cluster with additional helpers for the tests of this package.
type fixture struct{ *clustertest.Cluster }

func plain(t testing.TB, s *pgtest.Server, options ...clustertest.Option) *fixture {
	t.Helper()
	return &fixture{clustertest.Plain(t, s, options...)}
}

func newFixture(t testing.TB, s *pgtest.Server, login pgtest.Login, options ...clustertest.Option) *fixture {
	t.Helper()
	return &fixture{clustertest.New(t, s, login, options...)}
}
