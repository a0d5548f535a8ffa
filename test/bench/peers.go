package main

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/daypass/daypass/internal/postgres"
	"github.com/daypass/daypass/test/sitetest"
)

func (s *stack) startPeers(ctx context.Context, o options) (err error) {
	if s.moto, err = startMoto(ctx, o, s.dir); err != nil {
		return fmt.Errorf("moto: %w", err)
	}
	if s.pgbouncer, err = startPgBouncer(ctx, o, filepath.Join(s.dir, "pgbouncer"), s.small, false); err != nil {
		return fmt.Errorf("PgBouncer: %w", err)
	}
	if s.once, err = startPgBouncer(ctx, o, filepath.Join(s.dir, "pgbouncer-once"), s.small, true); err != nil {
		return fmt.Errorf("PgBouncer: %w", err)
	}
	return nil
}

// moto is a moto_server that checks signatures and policies.
type moto struct {
	*sitetest.Process
	endpoint
	version string
}

func (m *moto) stop() {
	if m != nil {
		m.Stop()
	}
}

// startMoto starts moto and creates a cluster, and a user with an access key and a policy. Moto
// does not check these first calls.
func startMoto(ctx context.Context, o options, dir string) (_ *moto, err error) {
	policy, err := json.Marshal(map[string]any{"Version": "2012-10-17", "Statement": []any{
		map[string]any{"Effect": "Allow", "Action": "redshift:*", "Resource": "*"},
	}})
	if err != nil {
		return nil, err
	}
	calls := []struct {
		service string
		form    url.Values
	}{
		{"redshift", url.Values{"Action": {"CreateCluster"}, "Version": {"2012-12-01"}, "ClusterIdentifier": {"bench"}, "DBName": {"bench"},
			"NodeType": {"ra3.large"}, "MasterUsername": {"admin"}, "MasterUserPassword": {"Passw0rd"}}},
		{"iam", url.Values{"Action": {"CreateUser"}, "Version": {"2010-05-08"}, "UserName": {"bench"}}},
		{"iam", url.Values{"Action": {"PutUserPolicy"}, "Version": {"2010-05-08"}, "UserName": {"bench"}, "PolicyName": {"all"},
			"PolicyDocument": {string(policy)}}},
		{"iam", url.Values{"Action": {"CreateAccessKey"}, "Version": {"2010-05-08"}, "UserName": {"bench"}}},
	}
	m := &moto{}
	if m.address, err = sitetest.FreeAddress(); err != nil {
		return nil, err
	}
	program := o.moto
	if program == "" {
		program = "moto_server"
	}
	_, port, _ := net.SplitHostPort(m.address)
	m.Process, err = start(dir, program, []string{fmt.Sprintf("INITIAL_NO_AUTH_ACTION_COUNT=%d", len(calls))}, "-H", "127.0.0.1", "-p", port)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			m.stop()
		}
	}()
	if err := m.Reachable(ctx, m.address); err != nil {
		return nil, err
	}
	var answer []byte
	for _, one := range calls {
		c := &caller{address: m.address, signers: []*signer{newSigner(m.address, accessKey{"AKIANOBODYNOBODYNOBO", "nobody"}, one.service)}}
		if answer, err = c.call(one.form.Encode()); err != nil {
			return nil, fmt.Errorf("%s: %w", one.form.Get("Action"), err)
		}
		c.close()
	}
	var made struct {
		ID     string `xml:"CreateAccessKeyResult>AccessKey>AccessKeyId"`
		Secret string `xml:"CreateAccessKeyResult>AccessKey>SecretAccessKey"`
	}
	if err := xml.Unmarshal(answer, &made); err != nil || made.Secret == "" {
		return nil, fmt.Errorf("no access key: %s", answer)
	}
	m.keys = []accessKey{{made.ID, made.Secret}}
	// moto checks signatures if it refuses a wrong one.
	wrong := endpoint{m.address, []accessKey{{made.ID, "wrong"}}}.caller()
	if text, err := wrong.call(issueForm("bench")); err == nil {
		return nil, fmt.Errorf("it does not check signatures: %s", text)
	}
	m.version = "moto " + motoVersion(program)
	return m, nil
}

func motoVersion(program string) string {
	out, err := exec.Command(program, "--version").Output()
	if err == nil && len(out) > 0 {
		return strings.TrimSpace(string(out))
	}
	if out, err := exec.Command("pip", "show", "moto").Output(); err == nil {
		for line := range strings.Lines(string(out)) {
			if v, ok := strings.CutPrefix(line, "Version:"); ok {
				return strings.TrimSpace(v)
			}
		}
	}
	return "of unknown version"
}

// pgbouncer is a PgBouncer with session pooling and stored SCRAM secrets. Like the gateway here, it
// offers TLS to clients and uses none to the server.
type pgbouncer struct {
	*sitetest.Process
	host, port string
	version    string
}

func (p *pgbouncer) stop() {
	if p != nil {
		p.Stop()
	}
}

func (p *pgbouncer) login(sslmode string) login {
	return login{p.host, p.port, "bench", benchPassword, "bench", sslmode}
}

func startPgBouncer(ctx context.Context, o options, dir string, d *database, once bool) (*pgbouncer, error) {
	program := o.pgbouncer
	if program == "" {
		program = "pgbouncer"
		if _, err := exec.LookPath(program); err != nil {
			program = "/usr/sbin/pgbouncer"
		}
	}
	// Debian's PgBouncer does not run as root, and reads its files as its own user.
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	address, err := sitetest.FreeAddress()
	if err != nil {
		return nil, err
	}
	p := &pgbouncer{}
	p.host, p.port, _ = net.SplitHostPort(address)
	conn, err := pgx.Connect(ctx, d.server.ConnString(postgres.Superuser, "postgres"))
	if err != nil {
		return nil, err
	}
	defer conn.Close(ctx)
	var secret string
	if err := conn.QueryRow(ctx, "SELECT rolpassword FROM pg_authid WHERE rolname = 'bench'").Scan(&secret); err != nil {
		return nil, err
	}
	files := map[string]string{"users.txt": fmt.Sprintf("%q %q\n", "bench", secret)}
	for _, name := range []string{"server.crt", "server.key"} {
		text, err := os.ReadFile(filepath.Join(d.tls, name))
		if err != nil {
			return nil, err
		}
		files[name] = string(text)
	}
	lifetime := 3600
	if once {
		lifetime = 0
	}
	files["pgbouncer.ini"] = fmt.Sprintf(`[databases]
bench = host=127.0.0.1 port=%d
[pgbouncer]
listen_addr = %s
listen_port = %s
unix_socket_dir =
auth_type = scram-sha-256
auth_file = %[4]s/users.txt
pool_mode = session
max_client_conn = %[5]d
default_pool_size = %[5]d
server_lifetime = %[6]d
client_tls_sslmode = allow
client_tls_cert_file = %[4]s/server.crt
client_tls_key_file = %[4]s/server.key
server_tls_sslmode = disable
log_connections = 0
log_disconnections = 0
`, d.server.Port(), p.host, p.port, dir, o.idle+100, lifetime)
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil { // #nosec G306 -- made for this run
			return nil, err
		}
	}
	args := []string{filepath.Join(dir, "pgbouncer.ini")}
	if os.Geteuid() == 0 {
		args = append([]string{"-u", "nobody"}, args...)
	}
	if out, err := exec.CommandContext(ctx, program, "--version").Output(); err == nil {
		p.version, _, _ = strings.Cut(string(out), "\n")
	}
	if p.Process, err = start(dir, program, nil, args...); err != nil {
		return nil, err
	}
	if err := p.Reachable(ctx, address); err != nil {
		p.stop()
		return nil, err
	}
	return p, nil
}
