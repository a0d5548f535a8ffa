package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/daypass/daypass/internal/config"
	"github.com/daypass/daypass/internal/postgres"
	"github.com/daypass/daypass/internal/server"
	"github.com/daypass/daypass/test/envtest"
	"github.com/daypass/daypass/test/pgtest"
	"github.com/daypass/daypass/test/sitetest"
)

func TestMain(m *testing.M) {
	testscript.Main(tests{m}, map[string]func(){"daypass": main, "daypass-short-lease": func() {
		env := newEnvironment()
		env.lease = shortLease
		execute(env)
	}, "daypass-brief-waits": func() {
		env := newEnvironment()
		env.wait = waitBriefly
		execute(env)
	}})
}

// tests runs the tests. The commands that they start keep their environment.
type tests struct{ *testing.M }

func (t tests) Run() int {
	envtest.Clear()
	return t.M.Run()
}

// shortLease is the lease of servers whose end a test waits for.
const shortLease = 6 * time.Second

// TestScript runs the stories of testdata/script. Each has its own PostgreSQL server, and a
// Daypass server in this process, whose clock it can move. The client commands are the real
// binary and real programs.
func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Values[siteKey{}] = &site{}
			env.Setenv("AWS_EC2_METADATA_DISABLED", "true")
			env.Setenv("AWS_CONFIG_FILE", env.WorkDir+"/no-aws-config")
			env.Setenv("AWS_SHARED_CREDENTIALS_FILE", env.WorkDir+"/no-aws-credentials")
			env.Setenv("GORACE", os.Getenv("GORACE"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"site":      cmdSite,
			"stop":      cmdStop,
			"start":     cmdStart,
			"reload":    cmdReload,
			"clock":     cmdClock,
			"principal": cmdPrincipal,
			"logon":     cmdLogon,
			"logons":    cmdLogons,
			"ended":     cmdEnded,
			"admin":     cmdAdmin,
			"alter":     cmdAlter,
		},
	})
}

type siteKey struct{}

// site is the setup of one script.
type site struct {
	*sitetest.Site
	offset atomic.Int64 // of the server's clock, in nanoseconds
	hangup chan os.Signal
	log    *pgtest.Log          // of the running server
	open   map[string]*pgx.Conn // sessions that stay open, by the name in the script
}

func (s *site) now() time.Time { return time.Now().Add(time.Duration(s.offset.Load())) }

func theSite(ts *testscript.TestScript) *site {
	s := ts.Value(siteKey{}).(*site)
	if s.Site == nil {
		ts.Fatalf("the script has no site yet")
	}
	return s
}

// site starts PostgreSQL with the example of sitetest and a Daypass server in front of it, and
// sets the script's AWS environment to use that server as ana.
func cmdSite(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 0 {
		ts.Fatalf("usage: site")
	}
	s := ts.Value(siteKey{}).(*site)
	installation, err := pgtest.Installation()
	ts.Check(err)
	started, err := sitetest.New(ts.Getenv("WORK"))
	ts.Check(err)
	ts.Defer(func() { ts.Check(started.Close()) })
	settings := map[string]string{"max_connections": "260"}
	ts.Check(started.StartDatabase(context.Background(), installation, postgres.Options{Settings: settings}, sitetest.Example()...))
	ts.Check(started.Configure(sitetest.Configuration))
	s.Site = started

	ts.Setenv("AWS_ENDPOINT_URL", "http://"+s.API)
	ts.Setenv("AWS_REGION", "us-east-1")
	ts.Setenv("AWS_DEFAULT_REGION", "us-east-1")
	host, port, err := net.SplitHostPort(s.Gateway)
	ts.Check(err)
	ts.Setenv("PGHOST", host)
	ts.Setenv("PGPORT", port)
	ts.Setenv("PGSSLMODE", "verify-full")
	ts.Setenv("PGSSLROOTCERT", s.CACert())
	cmdPrincipal(ts, false, []string{"ana"})
	s.open = map[string]*pgx.Conn{}
	ts.Defer(func() {
		for _, conn := range s.open {
			conn.Close(context.Background())
		}
		if s.log != nil {
			s.end(ts)
		}
	})
	s.begin(ts)
}

func (s *site) begin(ts *testscript.TestScript) {
	s.hangup, s.log = make(chan os.Signal, 1), &pgtest.Log{}
	if err := s.Start(inProcess(s.ConfigFile(), s.log, server.Options{
		Now:   s.now,
		Drain: 5 * time.Second,
		// Two hundred simultaneous logons can be slow on a busy machine.
		Patience: time.Minute,
		Hangup:   s.hangup,
		Load:     func() (*config.Config, error) { return config.Load(s.ConfigFile()) },
	})); err != nil {
		ts.Fatalf("serve: %v\n%s", err, s.log)
	}
}

func (s *site) end(ts *testscript.TestScript) {
	err := s.Stop()
	ts.Logf("server log:\n%s", s.log)
	s.log = nil
	ts.Check(err)
}

// stop ends the Daypass server, as SIGTERM does, and waits until PostgreSQL has ended the processes
// of its sessions.
func cmdStop(ts *testscript.TestScript, neg bool, args []string) {
	s := theSite(ts)
	s.end(ts)
	conn, err := pgx.Connect(context.Background(), s.Database.ConnString(postgres.Superuser, "postgres"))
	ts.Check(err)
	defer conn.Close(context.Background())
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		left, err := rows(conn, "SELECT pid, query FROM pg_stat_activity WHERE usename LIKE 'IAM:%'")
		ts.Check(err)
		if left == "" {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("processes of sessions a minute after the end of the server:\n%s", left)
		}
	}
}

// start starts the server again with the same data directory.
func cmdStart(ts *testscript.TestScript, neg bool, args []string) { theSite(ts).begin(ts) }

// reload makes the server read its configuration again, and waits until the log has the result.
func cmdReload(ts *testscript.TestScript, neg bool, args []string) {
	s := theSite(ts)
	mark := s.log.Len()
	s.hangup <- os.Interrupt
	for {
		text := s.log.String()[mark:]
		if strings.Contains(text, "configuration reloaded") != strings.Contains(text, "configuration was refused") {
			if neg != strings.Contains(text, "configuration was refused") {
				ts.Fatalf("reload: %s", text)
			}
			fmt.Fprint(ts.Stdout(), text)
			return
		}
		s.log.Wait()
	}
}

// clock moves the server's clock forward: clock 16m.
func cmdClock(ts *testscript.TestScript, neg bool, args []string) {
	d, err := time.ParseDuration(args[0])
	ts.Check(err)
	theSite(ts).offset.Add(int64(d))
}

// principal makes later calls sign as another IAM user.
func cmdPrincipal(ts *testscript.TestScript, neg bool, args []string) {
	key, ok := sitetest.Keys[args[0]]
	if !ok {
		ts.Fatalf("no principal %q", args[0])
	}
	ts.Setenv("AWS_ACCESS_KEY_ID", key[0])
	ts.Setenv("AWS_SECRET_ACCESS_KEY", key[1])
}

// answer is the output of get-cluster-credentials.
type answer struct{ DbUser, DbPassword string }

func (s *site) connect(ts *testscript.TestScript, file, database string) (*pgx.Conn, error) {
	var a answer
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(file)), &a))
	return s.connectAs(a, database)
}

func (s *site) connectAs(a answer, database string) (*pgx.Conn, error) {
	config, err := s.Logon(a.DbUser, a.DbPassword, database)
	if err != nil {
		return nil, err
	}
	config.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
	return pgx.ConnectConfig(context.Background(), config)
}

// logon [-keep NAME | -as NAME] FILE DATABASE SQL logs on with the credential in FILE and prints
// the rows that SQL returns, with columns separated by |. A refusal prints SQLSTATE: message.
// With -keep the session stays open under the name. -as NAME SQL runs SQL in that session.
func cmdLogon(ts *testscript.TestScript, neg bool, args []string) {
	s := theSite(ts)
	var conn *pgx.Conn
	var err error
	sql := args[len(args)-1]
	switch {
	case args[0] == "-as":
		conn = s.open[args[1]]
		if conn == nil {
			ts.Fatalf("no session %q", args[1])
		}
	case args[0] == "-keep":
		conn, err = s.connect(ts, args[2], args[3])
		if err == nil {
			s.open[args[1]] = conn
		}
	default:
		conn, err = s.connect(ts, args[0], args[1])
		if err == nil {
			defer conn.Close(context.Background())
		}
	}
	var text string
	if err == nil {
		text, err = rows(conn, sql)
	}
	report(ts, neg, "logon", text, err)
}

// ended NAME waits until a session that logon -keep left open has ended, and
// prints the session's last message.
func cmdEnded(ts *testscript.TestScript, neg bool, args []string) {
	conn := theSite(ts).open[args[0]]
	if neg || conn == nil {
		ts.Fatalf("usage: ended NAME, of an open session")
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_, told := conn.WaitForNotification(ctx)
	if _, ok := errors.AsType[*pgconn.PgError](told); !ok {
		ts.Fatalf("session %s: %v, want its end", args[0], told)
	}
	report(ts, true, "ended", "", told)
}

// logons N FILE DATABASE SQL makes N simultaneous logons.
func cmdLogons(ts *testscript.TestScript, neg bool, args []string) {
	s := theSite(ts)
	var n int
	_, err := fmt.Sscan(args[0], &n)
	ts.Check(err)
	var a answer
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[1])), &a))
	var group sync.WaitGroup
	errs := make([]error, n)
	for i := range n {
		group.Go(func() {
			conn, err := s.connectAs(a, args[2])
			if err == nil {
				_, err = rows(conn, args[3])
				conn.Close(context.Background())
			}
			errs[i] = err
		})
	}
	group.Wait()
	report(ts, neg, "logons", fmt.Sprintf("%d logons\n", n), errors.Join(errs...))
}

// admin [-db NAME] SQL runs SQL as the superuser, without the gateway.
func cmdAdmin(ts *testscript.TestScript, neg bool, args []string) {
	s := theSite(ts)
	database := "postgres"
	if args[0] == "-db" {
		database, args = args[1], args[2:]
	}
	conn, err := pgx.Connect(context.Background(), s.Database.ConnString(postgres.Superuser, database))
	ts.Check(err)
	defer conn.Close(context.Background())
	text, err := rows(conn, args[0])
	report(ts, neg, "admin", text, err)
}

// alter FILE OUT makes a credential file whose password differs in one character.
func cmdAlter(ts *testscript.TestScript, neg bool, args []string) {
	var a answer
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[0])), &a))
	middle := len(a.DbPassword) / 2
	other := "A"
	if a.DbPassword[middle] == 'A' {
		other = "B"
	}
	a.DbPassword = a.DbPassword[:middle] + other + a.DbPassword[middle+1:]
	data, err := json.Marshal(a)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), data, 0o600))
}

func rows(conn *pgx.Conn, sql string) (string, error) {
	results, err := conn.PgConn().Exec(context.Background(), sql).ReadAll()
	if err != nil {
		return "", err
	}
	var text strings.Builder
	for _, result := range results {
		for _, row := range result.Rows {
			for i, column := range row {
				if i > 0 {
					text.WriteByte('|')
				}
				text.Write(column)
			}
			text.WriteByte('\n')
		}
	}
	return text.String(), nil
}

func report(ts *testscript.TestScript, neg bool, what, text string, err error) {
	var refused *pgconn.PgError
	switch {
	case errors.As(err, &refused):
		fmt.Fprintf(ts.Stdout(), "%s: %s\n", refused.Code, refused.Message)
	case err != nil:
		fmt.Fprintln(ts.Stdout(), err)
	default:
		fmt.Fprint(ts.Stdout(), text)
	}
	if err == nil && neg {
		ts.Fatalf("%s succeeded, want a refusal", what)
	}
	if err != nil && !neg {
		ts.Fatalf("%s: %v", what, err)
	}
}
