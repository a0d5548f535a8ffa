package main

import (
	"context"
	"io"
	"log/slog"
	"testing"
	"time"

	"github.com/daypass/daypass/internal/config"
	"github.com/daypass/daypass/internal/postgres"
	"github.com/daypass/daypass/internal/server"
	"github.com/daypass/daypass/test/pgtest"
	"github.com/daypass/daypass/test/sitetest"
)

// inProcess serves a configuration in the test's process. Defaults for opts are the machine's
// clock and a drain of one second.
func inProcess(file string, log io.Writer, opts server.Options) sitetest.Serve {
	return func(ctx context.Context, ready func()) error {
		cfg, err := config.Load(file)
		if err != nil {
			return err
		}
		opts.Log = slog.New(slog.NewTextHandler(log, nil))
		if opts.Now == nil {
			opts.Now = time.Now
		}
		if opts.Drain == 0 {
			opts.Drain = time.Second
		}
		told := opts.Ready
		opts.Ready = func(where server.Running) {
			if told != nil {
				told(where)
			}
			ready()
		}
		return server.Run(ctx, cfg, opts)
	}
}

// newSite returns a site in a temporary directory, with a PostgreSQL server on which the steps
// have been run. Its processes end with the test.
func newSite(t *testing.T, inst postgres.Installation, steps ...sitetest.Step) *sitetest.Site {
	t.Helper()
	s, err := sitetest.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := s.StartDatabase(t.Context(), inst, postgres.Options{}, steps...); err != nil {
		t.Fatal(err)
	}
	return s
}

// startSite starts the site's Daypass in the process of the test. Its log is shown when
// the test fails.
func startSite(t *testing.T, s *sitetest.Site) {
	t.Helper()
	log := &pgtest.Log{}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the server's log:\n%s", log)
		}
	})
	if err := s.Start(inProcess(s.ConfigFile(), log, server.Options{})); err != nil {
		t.Fatal(err)
	}
}

// installation returns the PostgreSQL installed on this machine.
func installation(t *testing.T) postgres.Installation {
	t.Helper()
	inst, err := pgtest.Installation()
	if err != nil {
		t.Fatal(err)
	}
	return inst
}
