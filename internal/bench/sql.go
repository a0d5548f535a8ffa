package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
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

// pgbench runs PostgreSQL's own load generator.
func (d *database) pgbench(ctx context.Context, to login, args ...string) (string, error) {
	program := filepath.Join(d.server.Installation().BinDir, "pgbench")
	if _, err := os.Stat(program); err != nil {
		if program, err = exec.LookPath("pgbench"); err != nil {
			return "", errors.New("pgbench is not installed: it is in PostgreSQL's server or contrib package")
		}
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), "PGHOST="+to.host, "PGPORT="+to.port, "PGUSER="+to.user, "PGPASSWORD="+to.password, "PGDATABASE="+to.database, "PGSSLMODE="+to.sslmode)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("pgbench: %w: %s", err, out)
	}
	return string(out), nil
}

var (
	tpsLine       = regexp.MustCompile(`tps = ([\d.]+)`)
	processedLine = regexp.MustCompile(`actually processed: (\d+)`)
	latencyLine   = regexp.MustCompile(`latency average = ([\d.]+) ms`)
)

// transactions runs pgbench -S; p50 is the mean, which is all that it tells.
func (d *database) transactions(o options, n int, to login) func(context.Context) (measurement, error) {
	return func(ctx context.Context) (measurement, error) {
		out, err := d.pgbench(ctx, to, "-n", "-S", "-M", "simple", "-c", strconv.Itoa(n), "-j", "2", "-T", strconv.Itoa(max(1, int(o.duration.Seconds()))))
		if err != nil {
			return measurement{}, err
		}
		tps, processed, latency := tpsLine.FindStringSubmatch(out), processedLine.FindStringSubmatch(out), latencyLine.FindStringSubmatch(out)
		if tps == nil || processed == nil || latency == nil {
			return measurement{}, fmt.Errorf("pgbench: %s", out)
		}
		var m measurement
		m.rate, _ = strconv.ParseFloat(tps[1], 64)
		m.units, _ = strconv.ParseFloat(processed[1], 64)
		average, _ := strconv.ParseFloat(latency[1], 64)
		m.p50 = time.Duration(average * float64(time.Millisecond))
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
