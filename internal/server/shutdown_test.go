package server

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/daypass/daypass/test/pgtest"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// toldWhy waits for the last message to a session's client, which has to have this SQLSTATE.
func toldWhy(t *testing.T, conn *pgx.Conn, state string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	err := conn.PgConn().WaitForNotification(ctx)
	if said, ok := errors.AsType[*pgconn.PgError](err); !ok || said.Code != state {
		t.Errorf("the client is told %v, want %s", err, state)
	}
}

// sessionEnds counts the session ends in the audit log.
func (s *served) sessionEnds() int {
	s.t.Helper()
	files, err := filepath.Glob(filepath.Join(s.dir, "data", "audit", "*.jsonl"))
	if err != nil {
		s.t.Fatal(err)
	}
	n := 0
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			s.t.Fatal(err)
		}
		n += bytes.Count(data, []byte(`"eventName":"SessionEnd"`))
	}
	return n
}

func listening(address string) bool {
	conn, err := net.Dial("tcp", address)
	if err == nil {
		conn.Close()
	}
	return err == nil
}

// TestShutdownSteps: readiness fails at once, the listeners close after the delay, sessions
// continue, and a second signal ends them. Each client is notified, and each end is in the
// audit log before the process ends.
func TestShutdownSteps(t *testing.T) {
	t.Parallel() // the test mostly waits
	s := newServed(t, startDatabase(t), adminListener)
	s.drain, s.delay = 10*time.Minute, 2*time.Second
	s.start()
	credential := s.issue(s.now())
	idle, err := s.logon(credential)
	if err != nil {
		t.Fatal(err)
	}
	running, err := s.logon(credential)
	if err != nil {
		t.Fatal(err)
	}
	query := make(chan error, 1)
	go func() {
		_, err := running.Exec(context.Background(), "select pg_sleep(600)")
		query <- err
	}()
	pgtest.Eventually(t, "the query runs", func() bool {
		_, _, metrics := s.get("http://" + s.where.Admin + "/metrics")
		return strings.Contains(metrics, `daypass_sessions{cluster="examplecluster"} 2`)
	})

	done, stopped := make(chan error, 1), time.Now()
	go func() { done <- s.stop() }()
	pgtest.Eventually(t, "the server is not ready", func() bool {
		status, _, _ := s.get("http://" + s.where.Admin + "/readyz")
		return status == 503
	})
	if !strings.Contains(s.log.String(), "sessions=2") {
		t.Error("the log does not say how many sessions there are")
	}
	told, late := []*pgx.Conn{idle}, 0
	switch conn, err := s.logon(credential); {
	case err == nil:
		told, late = append(told, conn), 1
	case time.Since(stopped) < s.delay:
		t.Errorf("a logon while load balancers have not noticed: %v", err)
	default:
		t.Logf("NOT CHECKED on this busy machine: a logon while load balancers have not noticed: %v", err)
	}
	pgtest.Eventually(t, "the gateway's listener closes", func() bool { return !listening(s.where.Gateway.String()) })
	pgtest.Eventually(t, "the API's listener closes", func() bool { return !listening(strings.TrimPrefix(s.where.API, "http://")) })
	if status, _, _ := s.get("http://" + s.where.Admin + "/readyz"); status != 503 {
		t.Errorf("readiness during the drain = %d", status)
	}
	if _, err := idle.Exec(t.Context(), "select 1"); err != nil {
		t.Errorf("a session during the drain: %v", err)
	}
	pgtest.Eventually(t, "the log says what is waited for", func() bool { return strings.Contains(s.log.String(), "waiting for sessions") })

	began := time.Now()
	close(s.hurry)
	for _, conn := range told {
		toldWhy(t, conn, "57P01")
	}
	var said *pgconn.PgError
	if err := <-query; !errors.As(err, &said) || said.Code != "57014" && said.Code != "57P01" {
		t.Errorf("the query that ran = %v", err)
	}
	if err := <-done; err != nil {
		t.Errorf("Run() = %v", err)
	}
	if took := time.Since(began); took > time.Minute {
		t.Errorf("the second signal took %v", took)
	}
	if n := s.sessionEnds(); n != 2+late {
		t.Errorf("%d ends in the audit log, want %d", n, 2+late)
	}
}

// TestDefaultDrain: the default time that Kubernetes, systemd and Docker allow is enough, or
// the documents say what to set.
func TestDefaultDrain(t *testing.T) {
	if defaultDrain > 20*time.Second {
		t.Errorf("the drain is %v: with what follows it does not end well within 30 s", defaultDrain)
	}
	s := newServed(t, startDatabase(t), adminListener)
	s.drain = -1
	s.start()
	idle, err := s.logon(s.issue(s.now()))
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	done := make(chan error, 1)
	go func() { done <- s.stop() }()
	toldWhy(t, idle, "57P01")
	if err := <-done; err != nil {
		t.Errorf("Run() = %v", err)
	}
	if took := time.Since(began); took >= defaultDrain {
		t.Errorf("without a drain it took %v", took)
	}
	if n := s.sessionEnds(); n != 1 {
		t.Errorf("%d ends in the audit log, want 1", n)
	}
}
