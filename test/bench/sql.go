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

// login is the address of a database and the credentials for it.
type login struct{ host, port, user, password, database, sslmode string }

// config converts the login for pgconn.
func (l login) config() (*pgconn.Config, error) {
	config, err := pgconn.ParseConfig(fmt.Sprintf("host=%s port=%s dbname=%s sslmode=%s", l.host, l.port, l.database, l.sslmode))
	if err != nil {
		return nil, err
	}
	config.User, config.Password = l.user, l.password
	return config, nil
}

// open logs on and sends a query, because a pooler opens its session to the server only then.
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

// logOn opens a connection and closes it, and returns how long the opening took.
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
func logons(o options, n int, pause time.Duration, to login) func(context.Context, cpuTime) (measurement, error) {
	return func(ctx context.Context, spent cpuTime) (measurement, error) {
		config, err := to.config()
		if err != nil {
			return measurement{}, err
		}
		return closedLoop(ctx, o, n, pause, spent, func(int) (client, error) {
			return client{work: func() (time.Duration, error) { return logOn(config) }}, nil
		})
	}
}

// pgbench runs PostgreSQL's own load generator. If progress is not nil, it gets each line of
// standard error.
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

var progressLine = regexp.MustCompile(`^progress: ([\d.]+) s, ([\d.]+) tps, lat ([\d.]+) ms`)

// transactions runs pgbench -S, which reports once a second. The report of the second after all
// sessions have opened is the cold rate; reports after the warm-up are counted. So the backends
// of all targets are equally warm, even those that were started for this measurement. p50 is the
// mean, because pgbench reports only that.
func (d *database) transactions(o options, n int, to login) func(context.Context, cpuTime) (measurement, error) {
	return func(ctx context.Context, spent cpuTime) (measurement, error) {
		warm, counted := 1+max(1, seconds(o.warm)), seconds(o.duration)
		var m measurement
		var cpu time.Duration
		var last, units, latency, time0 float64
		out, err := d.pgbench(ctx, to, func(line string) {
			fields := progressLine.FindStringSubmatch(line)
			if fields == nil {
				return
			}
			at, _ := strconv.ParseFloat(fields[1], 64)
			tps, _ := strconv.ParseFloat(fields[2], 64)
			ms, _ := strconv.ParseFloat(fields[3], 64)
			switch {
			case last == 0:
			case m.cold == 0:
				m.cold = tps
			}
			if time0 > 0 {
				units += tps * (at - last)
				latency += ms * tps * (at - last)
				m.rate = units / (at - time0)
				m.cpu = time.Duration(float64(spent.now()-cpu) / units)
			} else if at >= float64(warm)-0.5 {
				time0, cpu = at, spent.now()
			}
			last = at
		}, "-n", "-S", "-M", "simple", "-P", "1", "-c", strconv.Itoa(n), "-j", strconv.Itoa(min(n, 2)), "-T", strconv.Itoa(warm+counted+1)) // pgbench may omit the last report
		if err != nil {
			return m, err
		}
		if units == 0 {
			return m, fmt.Errorf("pgbench: no report once it was warm: %s", out)
		}
		m.p50 = time.Duration(latency / units * float64(time.Millisecond))
		return m, nil
	}
}

func seconds(d time.Duration) int { return max(1, int(d.Round(time.Second)/time.Second)) }

// queries runs one query after the other in one session, to measure the latency that the relay
// adds.
func queries(o options, to login) func(context.Context, cpuTime) (measurement, error) {
	return func(ctx context.Context, spent cpuTime) (measurement, error) {
		config, err := to.config()
		if err != nil {
			return measurement{}, err
		}
		return closedLoop(ctx, o, 1, 0, spent, func(int) (client, error) {
			conn, err := open(config)
			if err != nil {
				return client{}, err
			}
			return client{
				work: func() (time.Duration, error) {
					_, err := conn.Exec(context.Background(), "select abalance from pgbench_accounts where aid = 1").ReadAll()
					return 0, err
				},
				end: func() { _ = conn.Close(context.Background()) },
			}, nil
		})
	}
}

// newUsers logs on as a database user that has never logged on before. If known is set, it logs on
// as one of these users again, under otherwise the same conditions.
func newUsers(o options, s *server, known bool) func(context.Context, cpuTime) (measurement, error) {
	return func(ctx context.Context, spent cpuTime) (measurement, error) {
		return closedLoop(ctx, o, 1, 0, spent, func(int) (client, error) {
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
