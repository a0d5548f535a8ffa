//go:build unix

package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/daypass/daypass/test/pgtest"
	"github.com/daypass/daypass/test/sitetest"
)

// TestProxy connects real clients through `daypass proxy` to a real Daypass and PostgreSQL.
func TestProxy(t *testing.T) {
	s := newClientSite(t)
	signIns := s.configureProxy(t)
	t.Run("Clients", s.testProxyClients)
	t.Run("UnixSocket", s.testProxyUnixSocket)
	t.Run("Refusals", s.testProxyRefusals)
	t.Run("SignIn", func(t *testing.T) { s.testProxySignIn(t, signIns) })
	t.Run("EndedSignIn", func(t *testing.T) { s.testProxyEndedSignIn(t, signIns) })
	t.Run("SignInAfterSleep", s.testProxySignInAfterSleep)
	t.Run("SignInElsewhere", s.testProxySignInElsewhere)
	t.Run("LostGateway", s.testProxyLostGateway)
	t.Run("Reload", s.testProxyReload)
	t.Run("Stop", s.testProxyStop)
}

// configureProxy sets the environment of the proxy: the profile "ana" has an access key, and the
// profile "work" wants a sign-in, which succeeds as soon as the browser is opened. It returns
// the number of times the browser was opened.
func (s *clientSite) configureProxy(t *testing.T) *atomic.Int64 {
	t.Helper()
	api, err := url.Parse(s.api)
	if err != nil {
		t.Fatal(err)
	}
	var opened atomic.Int64
	keep := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(api)
		r.Out.Host = r.In.Host // the signature covers it
	}}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/v1/authorize":
			opened.Add(1)
			q := r.URL.Query()
			http.Redirect(w, r, q.Get("redirect_uri")+"?"+url.Values{"code": {"c"}, "state": {q.Get("state")}}.Encode(), http.StatusFound)
		case "/v1/token":
			if r.Method == http.MethodGet {
				w.Header()["Date"] = nil // a test moves the clock of the proxy
				w.WriteHeader(http.StatusMethodNotAllowed)
				return
			}
			keys, err := sts.New(sts.Options{Region: "us-east-1", BaseEndpoint: &s.api, Credentials: credentials.NewStaticCredentialsProvider(
				strings.TrimPrefix(keysOfAna[0], "AWS_ACCESS_KEY_ID="), strings.TrimPrefix(keysOfAna[1], "AWS_SECRET_ACCESS_KEY="), "")}).GetSessionToken(r.Context(), nil)
			if err != nil {
				t.Error(err)
				return
			}
			claims := base64.RawURLEncoding.EncodeToString([]byte(`{"sub":"arn:aws:sts::123456789012:assumed-role/analyst/ana"}`))
			_ = json.NewEncoder(w).Encode(map[string]any{"accessToken": map[string]any{"accessKeyId": keys.Credentials.AccessKeyId,
				"secretAccessKey": keys.Credentials.SecretAccessKey, "sessionToken": keys.Credentials.SessionToken}, "tokenType": "aws_sigv4", "refreshToken": "r", "idToken": "e30." + claims + ".x", "expiresIn": 900})
		default:
			keep.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(server.Close)
	profile := "[profile %s]\nregion = us-east-1\nendpoint_url = %s\n"
	write := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(s.home, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for name, value := range map[string]string{
		"HOME": s.home, "XDG_CONFIG_HOME": filepath.Join(s.home, ".config"), "AWS_EC2_METADATA_DISABLED": "true", "AWS_PROFILE": "ana", "AWS_DEFAULT_PROFILE": "",
		"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_SESSION_TOKEN": "", "AWS_ENDPOINT_URL": "", "AWS_REGION": "", "AWS_DEFAULT_REGION": "",
		"AWS_LOGIN_CACHE_DIRECTORY": filepath.Join(s.home, "cache"), "PGSSLMODE": "", "PGSSLROOTCERT": "", "SSH_CONNECTION": "",
		"AWS_CONFIG_FILE": write("config", fmt.Sprintf(profile, "ana", s.api)+
			fmt.Sprintf(profile, "work", server.URL)+"login_session = arn:aws:sts::123456789012:assumed-role/analyst/ana\n", 0o600),
		"AWS_SHARED_CREDENTIALS_FILE": write("credentials", fmt.Sprintf("[ana]\naws_access_key_id = %s\naws_secret_access_key = %s\n",
			strings.TrimPrefix(keysOfAna[0], "AWS_ACCESS_KEY_ID="), strings.TrimPrefix(keysOfAna[1], "AWS_SECRET_ACCESS_KEY=")), 0o600),
		"DAYPASS_SSLROOTCERT": filepath.Join(s.dir, "data/tls/ca.crt"),
		"BROWSER":             write("browser", "#!/bin/sh\nexec curl --noproxy '*' -sSL -o /dev/null \"$1\"\n", 0o700),
	} {
		t.Setenv(name, value)
	}
	return &opened
}

// runningProxy is a `daypass proxy` in the process of the test.
type runningProxy struct {
	log  *pgtest.Log
	stop func() // asks it to end, as SIGTERM does
	done chan int
}

// startProxy starts the command and returns when it is ready.
func startProxy(t *testing.T, args ...string) *runningProxy {
	t.Helper()
	return startProxyAt(t, time.Now, args...)
}

func startProxyAt(t *testing.T, now func() time.Time, args ...string) *runningProxy {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	out, in := io.Pipe()
	p := &runningProxy{log: &pgtest.Log{}, stop: cancel, done: make(chan int, 1)}
	go func() {
		code := run(ctx, append([]string{"proxy"}, args...), environment{stdin: strings.NewReader(""), stdout: in, stderr: p.log, now: now})
		in.Close()
		p.done <- code
		close(p.done)
	}()
	t.Cleanup(func() {
		cancel()
		<-p.done
		if t.Failed() {
			t.Logf("the proxy's log:\n%s", p.log)
		}
	})
	var text bytes.Buffer
	buf := make([]byte, 4096)
	for !strings.Contains(text.String(), "Ready") {
		n, err := out.Read(buf)
		text.Write(buf[:n])
		if err != nil {
			t.Fatalf("daypass proxy %q ended, with code %d:\n%s%s", args, <-p.done, text.String(), p.log)
		}
	}
	go func() { _, _ = io.Copy(io.Discard, out) }()
	return p
}

// freePort returns a port that is free on both loopback addresses.
func freePort(t *testing.T) string {
	t.Helper()
	for range 20 {
		address, err := sitetest.FreeAddress()
		if err != nil {
			t.Fatal(err)
		}
		_, port, _ := net.SplitHostPort(address)
		if l, err := net.Listen("tcp", "[::1]:"+port); err == nil {
			l.Close()
			return port
		}
		if l, err := net.Listen("tcp", "[::1]:0"); err != nil {
			return port // a machine without IPv6
		} else {
			l.Close()
		}
	}
	t.Fatal("no port is free")
	return ""
}

// ask runs a query with psql and returns what it prints.
func (s *clientSite) ask(t *testing.T, uri, query string, env ...string) (string, error) {
	t.Helper()
	return s.run(t, env, s.psql, "-XAtw", uri, "-c", query)
}

func connectTo(t *testing.T, uri string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), uri)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.WithoutCancel(t.Context())) })
	return conn
}

func uriOf(port, database string) string {
	return "postgresql://anyone@127.0.0.1:" + port + "/" + database + "?sslmode=disable"
}

const whoQuery = "SELECT current_user || ' ' || session_user || ' ' || current_database() || ' ' || current_setting('application_name')"

// testProxyClients: two identities at once, the client's settings, and a query that is cancelled.
func (s *clientSite) testProxyClients(t *testing.T) {
	plain, grouped := freePort(t), freePort(t)
	p := startProxy(t, "--map", plain+"=examplecluster/dev,user=alice", "--map", grouped+"=examplecluster/*,user=alice,groups=analysts,port="+s.port+",host=127.0.0.1")
	for port, want := range map[string]string{plain: "alice IAM:alice dev x y", grouped: "IAM:alice:analysts IAM:alice:analysts dev x y"} {
		// psql asks for TLS first, and continues without it.
		got, err := s.ask(t, "postgresql://127.0.0.1:"+port+"/dev?application_name=x%20y", whoQuery)
		if err != nil || got != want {
			t.Errorf("psql: %q, %v, want %q", got, err, want)
		}
	}
	got, err := s.ask(t, uriOf(plain, "dev"), "SHOW work_mem", "PGOPTIONS=-c work_mem=7MB")
	if err != nil || got != "7MB" {
		t.Errorf("with options: %q, %v", got, err)
	}
	s.copyThroughProxy(t, uriOf(grouped, "dev"))
	for _, version := range []string{"3.0", "3.2"} {
		conn := connectTo(t, uriOf(plain, "dev")+"&min_protocol_version="+version+"&max_protocol_version="+version)
		holder := connectTo(t, uriOf(plain, "dev"))
		result := waitForLock(t, holder, conn)
		if err := conn.PgConn().CancelRequest(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := <-result; state(err) != "57014" {
			t.Errorf("protocol %s: the cancelled query ends with %v", version, err)
		}
		var one int
		if err := conn.QueryRow(t.Context(), "SELECT 1").Scan(&one); err != nil {
			t.Errorf("protocol %s: after the cancelled query: %v", version, err)
		}
		holder.Close(t.Context())
	}
	if text := p.log.String(); strings.Count(text, "msg=session ") != strings.Count(text, "\n") || !strings.Contains(text, `application="x y"`) {
		t.Errorf("the log has not one line for each session:\n%s", text)
	}
}

// waitForLock takes a lock in holder and runs a query in conn that waits for the lock. It returns
// when the query waits, and sends the query's result to the channel.
func waitForLock(t *testing.T, holder, conn *pgx.Conn) <-chan error {
	t.Helper()
	result := make(chan error, 1)
	if _, err := holder.Exec(t.Context(), "SELECT pg_advisory_lock(7)"); err != nil {
		t.Fatal(err)
	}
	go func() {
		_, err := conn.Exec(context.Background(), "SELECT pg_advisory_lock(7)")
		result <- err
	}()
	for waits := false; !waits; {
		if err := holder.QueryRow(t.Context(), "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = 7 AND NOT granted)").Scan(&waits); err != nil {
			t.Fatal(err)
		}
	}
	return result
}

// state is the SQLSTATE of an error.
func state(err error) string {
	if failed, ok := errors.AsType[*pgconn.PgError](err); ok {
		return failed.Code
	}
	return ""
}

func (s *clientSite) testProxyUnixSocket(t *testing.T) {
	dir, err := os.MkdirTemp("", "dp")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	startProxy(t, "--unix-socket", filepath.Join(dir, "s"), "--map", "5432=examplecluster/dev,user=alice")
	got, err := s.ask(t, "host="+filepath.Join(dir, "s")+" port=5432 dbname=dev", whoQuery)
	if err != nil || got != "alice IAM:alice dev psql" {
		t.Errorf("psql: %q, %v", got, err)
	}
	if info, err := os.Stat(filepath.Join(dir, "s")); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the directory: %v, %v, want mode 0700", info.Mode(), err)
	}
}

// testProxyRefusals: each error tells the person what to do.
func (s *clientSite) testProxyRefusals(t *testing.T) {
	good, other, elsewhere, untrusted, twice, chosen := freePort(t), freePort(t), freePort(t), freePort(t), freePort(t), freePort(t)
	ca := filepath.Join(s.home, "other.crt")
	if err := os.WriteFile(ca, []byte(otherCA), 0o600); err != nil {
		t.Fatal(err)
	}
	startProxy(t, "--no-browser", "--map", good+"=examplecluster/dev,user=alice", "--map", other+"=examplecluster/dev,user=bob",
		"--map", elsewhere+"=examplecluster/dev,user=alice,profile=work", "--map", untrusted+"=examplecluster/dev,user=alice,sslrootcert="+ca, "--map", chosen+"=examplecluster/*,user=alice")
	for _, row := range []struct{ uri, want string }{
		{uriOf(good, "sales"), `database "sales" is not the one of this port: connect to database "dev"`},
		{uriOf(good, "replication") + "&replication=true", "replication connections are not supported"}, // as pg_basebackup does
		{uriOf(chosen, "postgres"), `FATAL:  database "postgres": GetClusterCredentials: AccessDenied`},
		{uriOf(chosen, "postgres"), "HINT:  If this is not the database that you want"},
		{uriOf(good, "dev") + "&replication=true", "replication connections are not supported"},
		{"postgresql://127.0.0.1:" + good + "/dev?sslmode=require", "server does not support SSL, but SSL was required"},
		{uriOf(other, "dev"), "is not authorized to perform: redshift:GetClusterCredentials"},
		{uriOf(elsewhere, "dev"), `your sign-in is over, in the profile "work": run daypass login --profile work, then connect again`},
		{uriOf(untrusted, "dev"), "certificate signed by unknown authority"},
	} {
		got, err := s.ask(t, row.uri, "SELECT 1")
		if err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("psql %s: %q, %v, want %q", row.uri, got, err, row.want)
		}
	}
	for port, want := range map[string]string{other: "42501", elsewhere: "28000", untrusted: "08001"} {
		_, err := pgx.Connect(t.Context(), uriOf(port, "dev"))
		if state(err) != want {
			t.Errorf("port %s: %v, want SQLSTATE %s", port, err, want)
		}
	}
	// A web page can make a browser send this.
	conn, err := net.Dial("tcp", "127.0.0.1:"+good)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
	if answer, _ := io.ReadAll(conn); len(answer) != 0 {
		t.Errorf("the answer to HTTP is %q, want none", answer)
	}
	for _, row := range []struct{ args, want string }{
		{"--map " + good + "=examplecluster/dev,user=alice", "port " + good + " is in use"},
		{"--map " + twice + "=a/dev,user=x --map " + twice + "=b/dev,user=y", "is taken by another map, of a/dev as x"},
		{"--map 15432=examplecluster/dev", "no database user"},
		{"--map 15432=examplecluster,user=alice", "no database: write examplecluster/DATABASE"},
		{"--map 0.0.0.0:15432=examplecluster/dev,user=alice", "listens on this machine only"},
		{"--map 15432=examplecluster/dev,user=alice,sslmode=disable", "sslmode disable: must be verify-full"},
		{"--map 15432=examplecluster/dev,user=alice,colour=red", "colour is not a setting of a map"},
		{"--map 15432=examplecluster/dev,user=alice,user=bob", "user is given twice"},
		{"--map 99999=examplecluster/dev,user=alice", "must be 1 to 65535"},
		{"", "no maps: give --map"},
		{"--unix-socket " + s.home + "/" + strings.Repeat("x", 100) + " --map 5432=examplecluster/dev,user=alice", "choose a shorter directory"},
	} {
		_, stderr, code := runDaypass(t, append([]string{"proxy"}, strings.Fields(row.args)...)...)
		if code == 0 || !strings.Contains(strings.Join(strings.Fields(stderr), " "), row.want) {
			t.Errorf("daypass proxy %s = %d\n%s\nwant %q", row.args, code, stderr, row.want)
		}
	}
}

// testProxySignIn: ten connections that need a sign-in open one browser, and all work after it.
func (s *clientSite) testProxySignIn(t *testing.T, opened *atomic.Int64) {
	if _, err := exec.LookPath("curl"); err != nil {
		missing(t, "curl", "apt-get install curl")
	}
	port := freePort(t)
	startProxy(t, "--map", port+"=examplecluster/dev,user=alice,profile=work")
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			conn, err := pgx.Connect(t.Context(), uriOf(port, "dev"))
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close(context.WithoutCancel(t.Context()))
			var user string
			if err := conn.QueryRow(t.Context(), "SELECT session_user").Scan(&user); err != nil || user != "IAM:alice" {
				t.Errorf("session_user = %q, %v", user, err)
			}
		})
	}
	wg.Wait()
	if n := opened.Load(); n != 1 {
		t.Errorf("the browser was opened %d times, want once", n)
	}
}

// testProxyEndedSignIn: the server has ended a sign-in whose keys look valid for some minutes more.
func (s *clientSite) testProxyEndedSignIn(t *testing.T, opened *atomic.Int64) {
	if _, err := exec.LookPath("curl"); err != nil {
		missing(t, "curl", "apt-get install curl")
	}
	port, silent := freePort(t), freePort(t)
	startProxy(t, "--map", port+"=examplecluster/dev,user=alice,profile=work")
	startProxy(t, "--no-browser", "--map", silent+"=examplecluster/dev,user=alice,profile=work")
	if _, err := connectTo(t, uriOf(port, "dev")).Exec(t.Context(), "SELECT 1"); err != nil {
		t.Fatal(err)
	}
	paths, err := filepath.Glob(filepath.Join(os.Getenv("AWS_LOGIN_CACHE_DIRECTORY"), "*.json"))
	if err != nil || len(paths) != 1 {
		t.Fatalf("the cache has %q, %v", paths, err)
	}
	text, err := os.ReadFile(paths[0])
	if err != nil {
		t.Fatal(err)
	}
	text = regexp.MustCompile(`("accessKeyId":")[^"]*`).ReplaceAll(text, []byte("${1}ASIAAAAAAAAAAAAAAAAA"))
	if err := os.WriteFile(paths[0], text, 0o600); err != nil {
		t.Fatal(err)
	}
	before := opened.Load()
	if _, err := pgx.Connect(t.Context(), uriOf(silent, "dev")); state(err) != "28000" || !strings.Contains(err.Error(), "your sign-in is over") {
		t.Errorf("without a browser: %v, want SQLSTATE 28000", err)
	}
	if _, err := connectTo(t, uriOf(port, "dev")).Exec(t.Context(), "SELECT 1"); err != nil {
		t.Errorf("with a browser: %v", err)
	}
	if n := opened.Load() - before; n != 1 {
		t.Errorf("the browser was opened %d times, want once", n)
	}
}

// testProxySignInAfterSleep: the browser was opened, the person closed the laptop without signing
// in, and the next morning the browser is opened again.
func (s *clientSite) testProxySignInAfterSleep(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		missing(t, "curl", "apt-get install curl")
	}
	t.Setenv("AWS_LOGIN_CACHE_DIRECTORY", t.TempDir())
	opened, closing := filepath.Join(t.TempDir(), "opened"), filepath.Join(s.home, "closing")
	if err := os.WriteFile(closing, []byte("#!/bin/sh\n: > '"+opened+"'\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	signing := os.Getenv("BROWSER")
	t.Setenv("BROWSER", closing)
	var slept atomic.Int64
	port := freePort(t)
	startProxyAt(t, func() time.Time { return time.Now().Add(time.Duration(slept.Load())) }, "--map", port+"=examplecluster/dev,user=alice,profile=work")
	ctx, cancel := context.WithCancel(t.Context())
	evening := make(chan error, 1)
	go func() {
		_, err := pgx.Connect(ctx, uriOf(port, "dev"))
		evening <- err
	}()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(opened); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the browser was not opened")
		}
	}
	cancel()
	if err := <-evening; err == nil {
		t.Error("a connection without a sign-in")
	}
	// Clients that do not wait for a minute, such as pgAdmin, learn why when they try again.
	again, done := context.WithTimeout(t.Context(), 40*time.Second)
	defer done()
	if _, err := pgx.Connect(again, uriOf(port, "dev")); state(err) != "28000" || !strings.Contains(err.Error(), "sign in at the browser that has opened, or run daypass login --profile work") {
		t.Errorf("the second connection: %v, want SQLSTATE 28000 and what to do", err)
	}
	t.Setenv("BROWSER", signing)
	slept.Store(int64(8 * time.Hour))
	if _, err := connectTo(t, uriOf(port, "dev")).Exec(t.Context(), "SELECT 1"); err != nil {
		t.Errorf("the next morning: %v", err)
	}
}

// testProxyLostGateway: when connections to the gateway die, their sessions end with 57P01, and
// the next session works at once.
func (s *clientSite) testProxyLostGateway(t *testing.T) {
	between, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer between.Close()
	var mu sync.Mutex
	var passing []*net.TCPConn
	go func() {
		for {
			a, err := between.Accept()
			if err != nil {
				return
			}
			b, err := net.Dial("tcp", "127.0.0.1:"+s.port)
			if err != nil {
				a.Close()
				continue
			}
			mu.Lock()
			passing = append(passing, a.(*net.TCPConn))
			mu.Unlock()
			go func() { _, _ = io.Copy(a, b) }()
			go func() { _, _ = io.Copy(b, a); b.Close() }()
		}
	}()
	port := freePort(t)
	_, middle, _ := net.SplitHostPort(between.Addr().String())
	startProxy(t, "--map", port+"=examplecluster/dev,user=alice,host=127.0.0.1,port="+middle)
	conn := connectTo(t, uriOf(port, "dev"))
	if _, err := conn.Exec(t.Context(), "SELECT 1"); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	for _, one := range passing {
		_ = one.SetLinger(0)
		one.Close()
	}
	mu.Unlock()
	if _, err := conn.Exec(t.Context(), "SELECT 1"); state(err) != "57P01" {
		t.Errorf("after the connection died: %v, want SQLSTATE 57P01", err)
	}
	if _, err := connectTo(t, uriOf(port, "dev")).Exec(t.Context(), "SELECT 1"); err != nil {
		t.Errorf("a new connection: %v", err)
	}
}

// testProxyReload: SIGHUP puts a changed file in force, sessions go on, and a faulty file changes
// nothing.
func (s *clientSite) testProxyReload(t *testing.T) {
	first, second := freePort(t), freePort(t)
	file := filepath.Join(s.home, "maps.yaml")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	entry := "  - {listen: %s, cluster: examplecluster, database: dev, user: alice, groups: [%s]}\n"
	write("maps:\n" + fmt.Sprintf(entry, first, "analysts"))
	p := startProxy(t, "--config", file)
	conn := connectTo(t, uriOf(first, "dev"))
	var user string
	if err := conn.QueryRow(t.Context(), "SELECT session_user").Scan(&user); err != nil || user != "IAM:alice:analysts" {
		t.Errorf("session_user = %q, %v", user, err)
	}
	reload := func(want string) {
		t.Helper()
		hangUp(t)
		for deadline := time.Now().Add(time.Minute); !strings.Contains(p.log.String(), want); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("the log does not say %q", want)
			}
		}
	}
	write("maps:\n" + fmt.Sprintf(entry, second, "analysts") + "    colour: red\n")
	reload("nothing is changed")
	if _, err := connectTo(t, uriOf(first, "dev")).Exec(t.Context(), "SELECT 1"); err != nil {
		t.Errorf("after a faulty file: %v", err)
	}
	write("maps:\n" + fmt.Sprintf(entry, second, "analysts"))
	reload("the maps are in force")
	if _, err := connectTo(t, uriOf(second, "dev")).Exec(t.Context(), "SELECT 1"); err != nil {
		t.Errorf("the new port: %v", err)
	}
	if _, err := conn.Exec(t.Context(), "SELECT 1"); err != nil {
		t.Errorf("the session of the old port: %v", err)
	}
	if _, err := pgx.Connect(t.Context(), uriOf(first, "dev")); err == nil {
		t.Error("the old port is still open")
	}
}

// testProxyStop: an idle session ends at once with 57P01, and a running query may finish.
func (s *clientSite) testProxyStop(t *testing.T) {
	port := freePort(t)
	p := startProxy(t, "--map", port+"=examplecluster/dev,user=alice")
	idle, busy := connectTo(t, uriOf(port, "dev")), connectTo(t, uriOf(port, "dev"))
	result := waitForLock(t, idle, busy) // ending the idle session lets the query finish
	p.stop()
	if err := <-result; err != nil {
		t.Errorf("the running query: %v", err)
	}
	if _, err := idle.Exec(t.Context(), "SELECT 1"); state(err) != "57P01" {
		t.Errorf("the idle session: %v, want SQLSTATE 57P01", err)
	}
	if code := <-p.done; code != 0 {
		t.Errorf("the exit code is %d", code)
	}
	if log := p.log.String(); !strings.Contains(log, `reason="proxy stopped"`) || strings.Contains(log, "<nil>") {
		t.Errorf("the log of a proxy that was stopped:\n%s", log)
	}
}

// hangUp sends SIGHUP to this process, as `systemctl --user reload` does.
func hangUp(t *testing.T) {
	t.Helper()
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
}

// otherCA is a certificate that has signed nothing here.
var otherCA = func() string {
	server := httptest.NewTLSServer(nil)
	defer server.Close()
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
}()
