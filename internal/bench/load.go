package main

import (
	"bufio"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

func (s *stack) figures(o options) []figure {
	const body = "Action=GetClusterCredentials&Version=2012-12-01&DbUser=bench&DbName=bench&ClusterIdentifier=bench&DbGroups.DbGroup.1=one&DbGroups.DbGroup.2=two&AutoCreate=true"
	tps := func(mode string) []target {
		return []target{
			{name: "direct", measure: s.transactions(o, directTarget(s, mode))},
			{name: "gateway", pid: s.server.Process.Pid, measure: s.transactions(o, gatewayTarget(s, mode))},
		}
	}
	return []figure{
		{"issue", "Credentials issued (signature, four checks, audit line)", "per s", []target{
			{name: "net/http, fixed answer", pid: s.hello.Process.Pid, measure: s.requests(o, s.helloAt, body)},
			{name: "daypass", pid: s.server.Process.Pid, measure: s.requests(o, s.api, body)},
		}},
		{"logon", "Logons (TLS, one query)", "per s", []target{
			{name: "direct, SCRAM", measure: s.logons(o, directTarget(s, "require"))},
			{name: "gateway, credential", pid: s.server.Process.Pid, measure: s.logons(o, gatewayTarget(s, "require"))},
		}},
		{"tps", "Select-only transactions, plain", "per s", tps("disable")},
		{"tps", "Select-only transactions, TLS", "per s", tps("require")},
	}
}

// login is how a load generator reaches a database.
type login struct{ host, port, user, password, database, sslmode string }

func directTarget(s *stack, sslmode string) login {
	return login{"127.0.0.1", strconv.Itoa(s.postgres.Port()), "bench", benchPassword, "bench", sslmode}
}

func gatewayTarget(s *stack, sslmode string) login {
	host, port, _ := net.SplitHostPort(s.gateway)
	return login{host, port, s.user, s.password, "bench", sslmode}
}

// credential asks for the credential that the logons use: one hour.
func (s *stack) credential(ctx context.Context) error {
	conn, err := net.Dial("tcp", s.api)
	if err != nil {
		return err
	}
	defer conn.Close()
	body := "Action=GetClusterCredentials&Version=2012-12-01&DbUser=bench&DbName=bench&ClusterIdentifier=bench&DurationSeconds=3600"
	if _, err := conn.Write(newSigner(s.api).request(body)); err != nil {
		return err
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	var answer struct {
		User     string `xml:"GetClusterCredentialsResult>DbUser"`
		Password string `xml:"GetClusterCredentialsResult>DbPassword"`
	}
	if err := xml.Unmarshal(text, &answer); err != nil || answer.Password == "" {
		return fmt.Errorf("no credential: %s: %s", response.Status, text)
	}
	s.user, s.password = answer.User, answer.Password
	return nil
}

// clientsFor runs work on o.clients goroutines until the time is over and turns
// the latencies into a measurement.
func clientsFor(ctx context.Context, o options, client func() (work func() error, end func(), err error)) (measurement, int, error) {
	ctx, cancel := context.WithTimeout(ctx, o.duration)
	defer cancel()
	latencies := make([][]time.Duration, o.clients)
	errs := make([]error, o.clients)
	var group sync.WaitGroup
	began := time.Now()
	for i := range o.clients {
		group.Go(func() {
			work, end, err := client()
			if err != nil {
				errs[i] = err
				return
			}
			defer end()
			for ctx.Err() == nil {
				start := time.Now()
				if err := work(); err != nil {
					errs[i] = err
					return
				}
				latencies[i] = append(latencies[i], time.Since(start))
			}
		})
	}
	group.Wait()
	elapsed := time.Since(began)
	if err := errors.Join(errs...); err != nil {
		return measurement{}, 0, err
	}
	all := slices.Concat(latencies...)
	if len(all) == 0 {
		return measurement{}, 0, errors.New("nothing was done in the time")
	}
	slices.Sort(all)
	return measurement{
		rate: float64(len(all)) / elapsed.Seconds(),
		p50:  all[len(all)/2],
		p99:  all[len(all)*99/100],
	}, len(all), nil
}

// requests sends signed calls over keep-alive connections, each signed afresh.
func (s *stack) requests(o options, address, body string) func(context.Context) (measurement, int, error) {
	return func(ctx context.Context) (measurement, int, error) {
		return clientsFor(ctx, o, func() (func() error, func(), error) {
			conn, err := net.Dial("tcp", address)
			if err != nil {
				return nil, nil, err
			}
			reader := bufio.NewReader(conn)
			signer := newSigner(address)
			return func() error {
				if _, err := conn.Write(signer.request(body)); err != nil {
					return err
				}
				response, err := http.ReadResponse(reader, nil)
				if err != nil {
					return err
				}
				text, err := io.ReadAll(response.Body)
				if err == nil && response.StatusCode != http.StatusOK {
					err = fmt.Errorf("%s: %s", response.Status, text)
				}
				return err
			}, func() { conn.Close() }, nil
		})
	}
}

// logons opens a connection, asks one query and closes it, again and again.
func (s *stack) logons(o options, to login) func(context.Context) (measurement, int, error) {
	return func(ctx context.Context) (measurement, int, error) {
		return clientsFor(ctx, o, func() (func() error, func(), error) {
			config, err := pgx.ParseConfig(fmt.Sprintf("host=%s port=%s dbname=%s sslmode=%s", to.host, to.port, to.database, to.sslmode))
			if err != nil {
				return nil, nil, err
			}
			config.User, config.Password = to.user, to.password
			config.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
			return func() error {
				conn, err := pgx.ConnectConfig(context.Background(), config)
				if err != nil {
					return err
				}
				_, err = conn.Exec(context.Background(), "select 1")
				return errors.Join(err, conn.Close(context.Background()))
			}, func() {}, nil
		})
	}
}

type pgbenchResult struct {
	out string
	err error
}

// pgbench runs PostgreSQL's own load generator.
func (s *stack) pgbench(ctx context.Context, to login, args ...string) pgbenchResult {
	program := filepath.Join(s.postgres.Installation().BinDir, "pgbench")
	if _, err := os.Stat(program); err != nil {
		if program, err = exec.LookPath("pgbench"); err != nil {
			return pgbenchResult{err: errors.New("pgbench is not installed: install PostgreSQL's server package, or leave tps out with -only issue,logon")}
		}
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), "PGHOST="+to.host, "PGPORT="+to.port, "PGUSER="+to.user, "PGPASSWORD="+to.password, "PGDATABASE="+to.database, "PGSSLMODE="+to.sslmode)
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("pgbench: %w: %s", err, out)
	}
	return pgbenchResult{string(out), err}
}

var (
	tpsLine       = regexp.MustCompile(`tps = ([\d.]+)`)
	processedLine = regexp.MustCompile(`actually processed: (\d+)`)
	latencyLine   = regexp.MustCompile(`latency average = ([\d.]+) ms`)
)

func (s *stack) transactions(o options, to login) func(context.Context) (measurement, int, error) {
	return func(ctx context.Context) (measurement, int, error) {
		result := s.pgbench(ctx, to, "-n", "-S", "-M", "simple", "-c", strconv.Itoa(o.clients), "-j", "2", "-T", strconv.Itoa(int(o.duration.Seconds())))
		if result.err != nil {
			return measurement{}, 0, result.err
		}
		tps, processed, latency := tpsLine.FindStringSubmatch(result.out), processedLine.FindStringSubmatch(result.out), latencyLine.FindStringSubmatch(result.out)
		if tps == nil || processed == nil || latency == nil {
			return measurement{}, 0, fmt.Errorf("pgbench: %s", result.out)
		}
		rate, _ := strconv.ParseFloat(tps[1], 64)
		units, _ := strconv.Atoi(processed[1])
		average, _ := strconv.ParseFloat(latency[1], 64)
		return measurement{rate: rate, p50: time.Duration(average * float64(time.Millisecond))}, units, nil
	}
}

// signer writes signed requests with the signing key of the day at hand, so that
// the generator costs little beside the server.
type signer struct {
	host string
	day  string
	key  []byte
}

func newSigner(host string) *signer { return &signer{host: host} }

func (s *signer) request(body string) []byte {
	now := time.Now().UTC()
	stamp, day := now.Format("20060102T150405Z"), now.Format("20060102")
	if s.day != day {
		s.day, s.key = day, []byte("AWS4"+secretAccessKey)
		for _, part := range []string{day, "us-east-1", "redshift", "aws4_request"} {
			s.key = mac(s.key, part)
		}
	}
	const contentType = "application/x-www-form-urlencoded; charset=utf-8"
	canonical := "POST\n/\n\ncontent-type:" + contentType + "\nhost:" + s.host + "\nx-amz-date:" + stamp + "\n\ncontent-type;host;x-amz-date\n" + hash(body)
	scope := day + "/us-east-1/redshift/aws4_request"
	signature := hex.EncodeToString(mac(s.key, "AWS4-HMAC-SHA256\n"+stamp+"\n"+scope+"\n"+hash(canonical)))
	return []byte("POST / HTTP/1.1\r\nHost: " + s.host + "\r\nContent-Type: " + contentType + "\r\nX-Amz-Date: " + stamp +
		"\r\nAuthorization: AWS4-HMAC-SHA256 Credential=" + accessKeyID + "/" + scope + ", SignedHeaders=content-type;host;x-amz-date, Signature=" + signature +
		"\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\n\r\n" + body)
}

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

func hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}
