package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// login is how a load generator reaches a database.
type login struct{ host, port, user, password, database, sslmode string }

// config is the login for pgconn.
func (l login) config() (*pgconn.Config, error) {
	config, err := pgconn.ParseConfig(fmt.Sprintf("host=%s port=%s dbname=%s sslmode=%s", l.host, l.port, l.database, l.sslmode))
	if err != nil {
		return nil, err
	}
	config.User, config.Password = l.user, l.password
	return config, nil
}

// open logs on and asks one query: a pooler opens its session for that only.
func open(config *pgconn.Config) (*pgconn.PgConn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	conn, err := pgconn.ConnectConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Exec(ctx, "select 1").ReadAll(); err != nil {
		return nil, errors.Join(err, conn.Close(ctx))
	}
	return conn, nil
}

// logOn opens a connection and closes it, and says how long the opening took.
func logOn(config *pgconn.Config) (time.Duration, error) {
	began := time.Now()
	conn, err := open(config)
	took := time.Since(began)
	if err != nil {
		return 0, err
	}
	return took, conn.Close(context.Background())
}

// logons opens and closes connections, n at a time.
func logons(o options, n int, pause time.Duration, to login) func(context.Context) (measurement, error) {
	return func(ctx context.Context) (measurement, error) {
		config, err := to.config()
		if err != nil {
			return measurement{}, err
		}
		return closedLoop(ctx, n, o.duration, pause, func(int) (client, error) {
			return client{work: func() (time.Duration, error) { return logOn(config) }}, nil
		})
	}
}

// pgbench runs PostgreSQL's own load generator, and calls progress with each line
// of its standard error, if there is someone to call.
func (d *database) pgbench(ctx context.Context, to login, progress func(line string), args ...string) (string, error) {
	program := filepath.Join(d.server.Installation().BinDir, "pgbench")
	if _, err := os.Stat(program); err != nil {
		if program, err = exec.LookPath("pgbench"); err != nil {
			return "", errors.New("pgbench is not installed: it is in PostgreSQL's server or contrib package")
		}
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), "PGHOST="+to.host, "PGPORT="+to.port, "PGUSER="+to.user, "PGPASSWORD="+to.password, "PGDATABASE="+to.database, "PGSSLMODE="+to.sslmode)
	var out strings.Builder
	cmd.Stdout = &out
	said, err := cmd.StderrPipe()
	if err != nil {
		return "", err
	}
	if err := cmd.Start(); err != nil {
		return "", err
	}
	var errs strings.Builder
	for lines := bufio.NewScanner(said); lines.Scan(); {
		fmt.Fprintln(&errs, lines.Text())
		if progress != nil {
			progress(lines.Text())
		}
	}
	if err := cmd.Wait(); err != nil {
		return "", fmt.Errorf("pgbench: %w: %s%s", err, errs.String(), out.String())
	}
	return out.String(), nil
}

var (
	tpsLine      = regexp.MustCompile(`tps = ([\d.]+)`)
	latencyLine  = regexp.MustCompile(`latency average = ([\d.]+) ms`)
	progressLine = regexp.MustCompile(`^progress: ([\d.]+) s, ([\d.]+) tps`)
)

// transactions runs pgbench -S for a second longer than it measures: CPU counts
// from its first report, when all sessions are open, to its last, so that no logon
// is among the transactions. p50 is the mean, which is all that pgbench tells. cpu
// is nil where no process's CPU is counted.
func (d *database) transactions(o options, n int, to login, cpu func() time.Duration) func(context.Context) (measurement, error) {
	return func(ctx context.Context) (measurement, error) {
		var began, spent time.Duration // CPU
		var last, units float64        // seconds and transactions
		seconds := max(1, int(o.duration.Seconds())) + 1
		out, err := d.pgbench(ctx, to, func(line string) {
			fields := progressLine.FindStringSubmatch(line)
			if fields == nil || cpu == nil {
				return
			}
			at, _ := strconv.ParseFloat(fields[1], 64)
			tps, _ := strconv.ParseFloat(fields[2], 64)
			if last == 0 {
				began = cpu()
			} else {
				units += tps * (at - last)
				spent = cpu() - began
			}
			last = at
		}, "-n", "-S", "-M", "simple", "-P", "1", "-c", strconv.Itoa(n), "-j", "2", "-T", strconv.Itoa(seconds))
		if err != nil {
			return measurement{}, err
		}
		tps, latency := tpsLine.FindStringSubmatch(out), latencyLine.FindStringSubmatch(out)
		if tps == nil || latency == nil || cpu != nil && units == 0 {
			return measurement{}, fmt.Errorf("pgbench: %s", out)
		}
		var m measurement
		m.rate, _ = strconv.ParseFloat(tps[1], 64)
		average, _ := strconv.ParseFloat(latency[1], 64)
		m.p50 = time.Duration(average * float64(time.Millisecond))
		if cpu != nil {
			m.cpu = time.Duration(float64(spent) / units)
		}
		return m, nil
	}
}

// newUsers logs on as a database user that nobody has logged on as before; known
// logs on as one of them again, under otherwise the same conditions.
func newUsers(o options, s *server, known bool) func(context.Context) (measurement, error) {
	return func(ctx context.Context) (measurement, error) {
		return closedLoop(ctx, 1, o.duration, 0, func(int) (client, error) {
			return client{work: func() (time.Duration, error) {
				s.users++
				to, err := issue(s.endpoint(1), fmt.Sprintf("new%06d", s.users), true)
				if err != nil {
					return 0, err
				}
				config, err := s.login(to, "require").config()
				if err != nil {
					return 0, err
				}
				took, err := logOn(config)
				if err == nil && known {
					took, err = logOn(config)
				}
				return took, err
			}}, nil
		})
	}
}
