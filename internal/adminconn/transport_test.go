package adminconn_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/daypass/daypass/internal/adminconn"
	"github.com/daypass/daypass/internal/clustercheck"
	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/handover"
	"github.com/daypass/daypass/internal/keyring"
	"github.com/daypass/daypass/test/pgtest"
)

func administer(t testing.TB, connString string) *handover.Admin {
	t.Helper()
	config, err := pgx.ParseConfig(connString)
	if err != nil {
		t.Fatal(err)
	}
	a := handover.New(dbuser.Config{Cluster: "hostile", Conn: config, Key: [32]byte{1}})
	t.Cleanup(a.Close)
	return a
}

// flood sends messages until the other end closes the connection, and counts the bytes.
func flood(sent *atomic.Int64, b []byte) pgtest.Step {
	return pgtest.Endless(b, func(n int) { sent.Add(int64(n)) })
}

func encoded(t testing.TB, messages ...pgproto3.BackendMessage) []byte {
	t.Helper()
	var b []byte
	for _, m := range messages {
		var err error
		if b, err = m.Encode(b); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

// TestServerFloods: there is a limit to what a server can make an administrative connection
// read, before it is ready and in every answer.
func TestServerFloods(t *testing.T) {
	status := encoded(t, &pgproto3.ParameterStatus{Name: "name", Value: strings.Repeat("v", 4000)})
	var many []byte
	for i := range 1000 {
		many = append(many, encoded(t, &pgproto3.ParameterStatus{Name: fmt.Sprint("name", i), Value: strings.Repeat("v", 100)})...)
	}
	notice := encoded(t, &pgproto3.NoticeResponse{Severity: "NOTICE", Code: "00000", Message: strings.Repeat("x", 4000)})
	row := encoded(t, &pgproto3.DataRow{Values: [][]byte{[]byte(strings.Repeat("x", 4000))}})
	field := encoded(t, &pgproto3.RowDescription{Fields: []pgproto3.FieldDescription{{Name: []byte("x"), DataTypeOID: 25}}})
	accept := pgtest.Accept("15.1")
	for _, test := range []struct {
		name  string
		first []pgtest.Step
		again []byte
		most  int64 // bytes the peer may send, the kernel's buffers included
	}{
		{"notices before authentication", nil, notice, 16 << 20},
		{"statuses before authentication", nil, status, 16 << 20},
		{"statuses", []pgtest.Step{pgtest.Send(&pgproto3.AuthenticationOk{})}, status, 16 << 20},
		{"notices", []pgtest.Step{pgtest.Send(&pgproto3.AuthenticationOk{})}, notice, 16 << 20},
		{"long message", []pgtest.Step{pgtest.Raw([]byte{'S', 0x3f, 0, 0, 0})}, notice, 16 << 20},
		{"rows in an answer", []pgtest.Step{accept, pgtest.Raw(field)}, row, 64 << 20},
		{"notices in an answer", []pgtest.Step{accept}, notice, 64 << 20},
		{"statuses in an answer", []pgtest.Step{accept}, many, 64 << 20},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var sent atomic.Int64
			peer := pgtest.NewPeer(t, pgtest.Always(append(test.first, flood(&sent, test.again))...))
			a := administer(t, peer.ConnString("daypass", "postgres"))
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			if _, err := a.Ensure(ctx, dbuser.Need{User: "alice"}); !errors.Is(err, adminconn.ErrUnreachable) {
				t.Errorf("Ensure = %v, want %v", err, adminconn.ErrUnreachable)
			}
			// The server counts what it has sent when its write returns.
			pgtest.Eventually(t, "the server has sent something", func() bool { return sent.Load() > 0 })
			if n := sent.Load(); n > test.most {
				t.Errorf("the server could send %d bytes", n)
			}
		})
	}
}

// TestServerAnswersSomethingElse: a server that gives arbitrary answers to the gateway's
// queries makes a logon fail, and does nothing else.
func TestServerAnswersSomethingElse(t *testing.T) {
	text := func(values ...string) []pgproto3.BackendMessage {
		description, row := &pgproto3.RowDescription{}, &pgproto3.DataRow{}
		for _, v := range values {
			description.Fields = append(description.Fields, pgproto3.FieldDescription{Name: []byte("x"), DataTypeOID: 25})
			row.Values = append(row.Values, []byte(v))
		}
		return []pgproto3.BackendMessage{description, row, &pgproto3.CommandComplete{CommandTag: []byte("SELECT 1")}}
	}
	for name, answer := range map[string][]pgproto3.BackendMessage{
		"nothing":      nil,
		"no result":    {&pgproto3.EmptyQueryResponse{}},
		"no row":       {&pgproto3.RowDescription{}, &pgproto3.CommandComplete{CommandTag: []byte("SELECT 0")}},
		"too little":   text("150001"),
		"no number":    text("many", "4711", "f"),
		"null":         {&pgproto3.RowDescription{Fields: make([]pgproto3.FieldDescription, 3)}, &pgproto3.DataRow{Values: make([][]byte, 3)}, &pgproto3.CommandComplete{}},
		"another pid":  text("150001", "4712", "f"),
		"a row alone":  {&pgproto3.DataRow{Values: [][]byte{[]byte("x")}}},
		"a parameter":  {&pgproto3.ParameterStatus{Name: "x", Value: "y"}},
		"copy":         {&pgproto3.CopyInResponse{}},
		"copy out":     {&pgproto3.CopyOutResponse{}, &pgproto3.CopyData{Data: []byte("x")}},
		"both ways":    {&pgproto3.CopyBothResponse{}},
		"a notify":     {&pgproto3.NotificationResponse{Channel: "x"}},
		"authenticate": {&pgproto3.AuthenticationCleartextPassword{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			peer := pgtest.NewPeer(t, pgtest.Always(pgtest.Accept("15.1"), pgtest.Answer(func(string) []pgproto3.BackendMessage { return answer })))
			a := administer(t, peer.ConnString("daypass", "postgres"))
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			if _, err := a.Ensure(ctx, dbuser.Need{User: "alice"}); err == nil {
				t.Error("Ensure succeeded")
			}
		})
	}
}

// TestAdministrativePassword: the password is revealed only in ways that the operator has
// allowed.
func TestAdministrativePassword(t *testing.T) {
	const password = "the-password"
	ask := map[string]pgproto3.BackendMessage{
		"cleartext": &pgproto3.AuthenticationCleartextPassword{},
		"MD5":       &pgproto3.AuthenticationMD5Password{Salt: [4]byte{1, 2, 3, 4}},
	}
	for name, message := range ask {
		peer := pgtest.NewPeer(t, pgtest.Always(pgtest.Send(message), pgtest.EOF()))
		a := administer(t, strings.Replace(peer.ConnString("daypass", "postgres"), "daypass@", "daypass:"+password+"@", 1))
		_, err := a.Ensure(t.Context(), dbuser.Need{User: "alice"})
		if !errors.Is(err, adminconn.ErrRights) || !strings.Contains(err.Error(), "scram-sha-256") || strings.Contains(err.Error(), password) {
			t.Errorf("%s: %v, want what to do", name, err)
		}
		report, err := clustercheck.Check(t.Context(), a.Admin)
		if err != nil || !report.Broken() || report.Findings[0].Code != "authentication" || !strings.Contains(report.Findings[0].Message, "sslmode=verify-full") {
			t.Errorf("%s: check = %+v, %v", name, report.Findings, err)
		}
	}
	for _, test := range []struct{ config, want string }{
		{"host=/run/postgresql", ""},
		{"host=127.0.0.1 sslmode=disable", "scram-sha-256,none"},
		{"host=localhost sslmode=require", "scram-sha-256,none"},
		{"host=192.0.2.1 sslmode=disable", "scram-sha-256"},
		{"host=192.0.2.1 sslmode=require", "scram-sha-256"},
		{"host=192.0.2.1 sslmode=prefer", "scram-sha-256"},
		{"host=192.0.2.1 sslmode=verify-ca", ""},
		{"host=192.0.2.1 sslmode=verify-full", ""},
		{"host=192.0.2.1 sslmode=disable require_auth=md5", "md5"},
		{"host=192.0.2.1 sslmode=verify-full require_auth=none", "none"},
	} {
		config, err := pgx.ParseConfig(test.config + " user=daypass")
		if err != nil {
			t.Fatal(err)
		}
		if got := adminconn.RequiredAuth(config); got != test.want {
			t.Errorf("%s: require_auth = %q, want %q", test.config, got, test.want)
		}
	}
}

// TestEd25519Server: the driver cannot bind SCRAM to an Ed25519 certificate.
func TestEd25519Server(t *testing.T) {
	certificate, key := pgtest.Ed25519Certificate(t)
	root := filepath.Join(t.TempDir(), "root.crt")
	if err := os.WriteFile(root, certificate, 0o600); err != nil {
		t.Fatal(err)
	}
	pg := pgtest.Start(t).StartAlone(t, nil)
	pg.SecureWith(t, certificate, key)
	login := pg.Admin(t)
	for _, test := range []struct {
		settings string
		works    bool
	}{
		{"sslmode=verify-full&sslrootcert=" + root, true},
		{"sslmode=verify-ca&sslrootcert=" + root, true},
		{"sslmode=require", false},
		{"sslmode=require&channel_binding=disable", true},
	} {
		a := administer(t, strings.Replace(pg.ConnString(login, "postgres"), "sslmode=disable", test.settings, 1))
		report, err := clustercheck.Check(t.Context(), a.Admin)
		switch {
		case err != nil:
			t.Errorf("%s: %v", test.settings, err)
		case test.works && report.ServerVersion == "":
			t.Errorf("%s: %+v", test.settings, report.Findings)
		case !test.works && (!strings.Contains(report.Findings[0].Message, "Ed25519") || !strings.Contains(report.Findings[0].Message, "channel_binding=disable")):
			t.Errorf("%s: %+v, want the ways out", test.settings, report.Findings)
		}
	}
}

// TestOldMinors: the check reports what is wrong with old minor versions, and which version
// fixes it.
func TestOldMinors(t *testing.T) {
	pgtest.EachMinor(t, func(t *testing.T, s *pgtest.Server) {
		report, err := clustercheck.Check(t.Context(), administer(t, s.ConnString(s.Admin(t), "postgres")).Admin)
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]clustercheck.Severity{"15.8": clustercheck.Warning, "15.9": clustercheck.Broken}[s.Installation.Version]
		for _, f := range report.Findings {
			if f.Code == "minor-version" {
				if f.Severity != want || !strings.Contains(f.Message, "15.10") {
					t.Errorf("finding %+v, want %s and the version that mends it", f, want)
				}
				return
			}
		}
		t.Errorf("no finding about the minor version: %+v", report.Findings)
	}, "15.8", "15.9")
	for version, faulty := range map[string]bool{
		"13.16": true, "13.17": true, "13.18": false, "14.14 (Debian 14.14-1.pgdg120+1)": true, "15.10": false, "16.5": true, "16.6": false,
		"17.0": true, "17.1": true, "17.2": false, "18.0": false, "17beta1": false, "12.1": false, "": false, "x.y": false,
	} {
		if fault := dbuser.MinorFault(version); (fault != "") != faulty {
			t.Errorf("MinorFault(%q) = %q, want one: %v", version, fault, faulty)
		}
	}
}

// TestPasswordFileIsReadAgain: the server refuses the administrative login after its password
// file has been updated. All versions refuse alike.
func TestPasswordFileIsReadAgain(t *testing.T) {
	pgtest.Ends(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		login := s.NewAdmin(t)
		config, err := pgx.ParseConfig(s.ConnString(login, "postgres"))
		if err != nil {
			t.Fatal(err)
		}
		var file atomic.Value
		file.Store(login.Password)
		reads := 0
		a := handover.New(dbuser.Config{Cluster: "rotated", Conn: config, Key: [32]byte{7},
			Password: func() (keyring.Secret, error) { reads++; return keyring.Secret(file.Load().(string)), nil }})
		t.Cleanup(a.Close)
		need := dbuser.Need{User: s.Login(t, "alice", "").Name}
		ensure := func() error {
			role, err := a.Ensure(t.Context(), need)
			a.Opened(role.Name)
			return err
		}
		lend(t, s, login, need.User)
		if err := ensure(); err != nil || reads != 0 {
			t.Fatalf("Ensure = %v after %d reads", err, reads)
		}
		rotate := func(password string) {
			s.Exec(t, "postgres", "ALTER ROLE "+pgtest.Quote(login.Name)+" PASSWORD '"+password+"'")
			s.Exec(t, "postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '"+login.Name+"'")
		}
		file.Store("second")
		rotate("second")
		if err := ensure(); err != nil {
			t.Errorf("with the new password in the file: %v", err)
		}
		rotate("third")
		err = ensure()
		if !errors.Is(err, adminconn.ErrRights) || !strings.Contains(err.Error(), "28P01") || !strings.Contains(err.Error(), "upstream_password_file") {
			t.Errorf("with the old password in the file: %v, want what to do", err)
		}
		file.Store("third")
		deadline := time.Now().Add(20 * time.Second)
		for err = ensure(); err != nil && time.Now().Before(deadline); err = ensure() {
			time.Sleep(20 * time.Millisecond) // the circuit admits an attempt within a second
		}
		if err != nil {
			t.Errorf("after the file was replaced: %v", err)
		}
	})
}

// lend permits an administrative login to lend a user, as a superuser has to from 16 on.
func lend(t testing.TB, s *pgtest.Server, login pgtest.Login, users ...string) {
	t.Helper()
	s.Exec(t, "postgres", "do $$ begin create role "+dbuser.MarkerRole+" nologin; exception when duplicate_object or unique_violation then null; end $$")
	for _, user := range append(users, dbuser.MarkerRole) {
		if s.Major() >= 16 {
			s.Exec(t, "postgres", "GRANT "+pgtest.Quote(user)+" TO "+pgtest.Quote(login.Name)+" WITH ADMIN OPTION, INHERIT FALSE, SET FALSE")
		}
	}
}

// TestRefusedLogins: the advice in each error fits the cause.
func TestRefusedLogins(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, shared *pgtest.Server) {
		s := shared.StartAlone(t, nil)
		for _, row := range []struct {
			name, hba, options string
			missing            bool
			code, text, sql    string
			lines              bool
		}{
			{"wrong password", "scram-sha-256", "LOGIN", false, "password", "upstream_password_file", "", false},
			{"missing, with passwords", "scram-sha-256", "", true, "password", "has no such login", "", false},
			{"NOLOGIN", "trust", "NOLOGIN", false, "logon", "may not log in (NOLOGIN)", "alter role %s login", false},
			{"missing", "trust", "", true, "logon", "does not exist", "create role %s login createrole", false},
			{"shut out", "reject", "LOGIN", false, "logon", "pg_hba.conf does not let", "", true},
			{"another method", "ident", "LOGIN", false, "logon", "does not authenticate", "", true},
		} {
			name := s.Name("login")
			if !row.missing {
				s.Exec(t, "postgres", "CREATE ROLE "+name+" "+row.options+" PASSWORD 'right'")
			}
			s.SetHBA(t, row.hba, name)
			report, err := clustercheck.Check(t.Context(), administer(t, s.ConnString(pgtest.Login{Name: name, Password: "wrong"}, "postgres")).Admin)
			if err != nil || len(report.Findings) != 1 {
				t.Errorf("%s: %+v, %v", row.name, report.Findings, err)
				continue
			}
			f := report.Findings[0]
			sql := strings.Join(f.SQL, ";")
			want := row.sql
			if want != "" {
				want = fmt.Sprintf(want, pgtest.Quote(name))
			}
			if f.Code != row.code || !strings.Contains(f.Message, row.text) || sql != want || (len(f.HBA) > 0) != row.lines {
				t.Errorf("%s: %+v", row.name, f)
			}
		}
	})
}

// TestSharedServer: two clusters on one server are recognised, whatever their addresses look
// like.
func TestSharedServer(t *testing.T) {
	s := pgtest.Start(t)
	var reports []clustercheck.Report
	for _, cluster := range []string{"east", "west"} {
		config, err := pgx.ParseConfig(s.ConnString(s.Admin(t), "postgres"))
		if err != nil {
			t.Fatal(err)
		}
		a := handover.New(dbuser.Config{Cluster: cluster, Conn: config})
		t.Cleanup(a.Close)
		report, err := clustercheck.Check(t.Context(), a.Admin)
		if err != nil {
			t.Fatal(err)
		}
		report.Compare(reports)
		reports = append(reports, report)
	}
	shared := func(r clustercheck.Report) (n int) {
		for _, f := range r.Findings {
			if f.Code == "shared" && f.Severity == clustercheck.Warning && strings.Contains(f.Message, `"east"`) {
				n++
			}
		}
		return n
	}
	if shared(reports[0]) != 0 || shared(reports[1]) != 1 {
		t.Errorf("findings %+v and %+v, want a warning in the second", reports[0].Findings, reports[1].Findings)
	}
}
