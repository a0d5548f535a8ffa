package adminconn

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// staleStandby is how long a connection to a standby is used if there are other hosts.
// After that there may be a primary again.
const staleStandby = 3 * time.Second

// host is one server of a cluster.
type host struct {
	config   *pgx.ConnConfig
	password *loginPassword
	state    func(version int) string
	major    atomic.Int32 // the version it last answered with; 0: it never answered
}

// splitHosts makes a host for each server that config names. Entries for the same server
// differ only in TLS and stay together. target_session_attrs applies to sessions only;
// administration needs the primary, which Connect finds.
func splitHosts(config *pgx.ConnConfig, password *loginPassword, state func(version int) string) []*host {
	type entry = pgconn.FallbackConfig
	entries := []*entry{{Host: config.Host, Port: config.Port, TLSConfig: config.TLSConfig}}
	var hosts []*host
	for _, e := range append(entries, config.Fallbacks...) {
		i := slices.IndexFunc(hosts, func(h *host) bool { return h.config.Host == e.Host && h.config.Port == e.Port })
		if i >= 0 {
			hosts[i].config.Fallbacks = append(hosts[i].config.Fallbacks, e)
			continue
		}
		c := config.Copy()
		c.Host, c.Port, c.TLSConfig, c.Fallbacks, c.ValidateConnect = e.Host, e.Port, e.TLSConfig, nil, nil
		hosts = append(hosts, &host{config: c, password: password, state: state})
	}
	for _, h := range hosts {
		protect(h.config)
	}
	return hosts
}

// connect opens a connection to a database of the server; empty means the
// administrative one.
//
// The settings in the start-up message depend on the server's version, which is unknown
// before the first answer. A server is assumed to have the newest version until it refuses a
// setting.
func (h *host) connect(ctx context.Context, database string) (*Conn, error) {
	major := int(h.major.Load())
	if major == 0 {
		major = newestMajor
	}
	stepped, again := false, false
	for attempt := 0; ; attempt++ {
		password := h.password.get()
		c, err := h.connectOnce(ctx, database, password, major)
		switch {
		case err == nil:
			h.major.Store(int32(c.Version / 10000))
			return c, nil
		case IsCode(err, pgerrcode.InvalidPassword) && !again && h.password.another(password):
			again = true
		case IsCode(err, pgerrcode.UndefinedObject) && major >= pinnedSince[0].major:
			major, stepped = olderThan(major, err), true
		case IsCode(err, pgerrcode.TooManyConnections) && stepped && attempt < 20:
			// The refused backend counts towards the login's connection limit until it ends.
			if pauseErr := Pause(ctx, attempt+1, err); pauseErr != nil {
				return nil, err
			}
		default:
			return nil, err
		}
	}
}

func (h *host) connectOnce(ctx context.Context, database, password string, major int) (*Conn, error) {
	config := h.config.Copy()
	config.Password = password
	if database != "" {
		config.Database = database
	}
	pin(config, major)
	raw, meter, err := connectMetered(ctx, config)
	if err != nil {
		return nil, poolerError(err)
	}
	c := &Conn{Conn: raw, meter: meter, opened: time.Now()}
	if err := c.prepare(ctx, h.state); err != nil {
		c.CloseNow()
		return nil, fmt.Errorf("%s: %w", config.Host, err)
	}
	return c, nil
}

// poolerError recognises a pooler by its refusal of start-up parameters that PostgreSQL
// accepts.
func poolerError(err error) error {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok && strings.Contains(pg.Message, "unsupported startup parameter") {
		return fmt.Errorf("%w: %w", ErrPooler, err)
	}
	return err
}

// SeveralHosts reports whether the cluster has more than one host.
func (p *Pool) SeveralHosts() bool { return len(p.hosts) > 1 }

// Others runs f on a new connection to each host but the primary, in parallel, and waits for
// all. Hosts that do not answer are skipped.
func (p *Pool) Others(ctx context.Context, f func(*Conn)) {
	var group sync.WaitGroup
	for i, h := range p.hosts {
		if i == p.primary() {
			continue
		}
		group.Go(func() {
			c, err := h.connect(ctx, "")
			if err != nil {
				return
			}
			defer c.CloseNow()
			f(c)
		})
	}
	group.Wait()
}

// HostAnswer is what a host of a cluster answers to the administrative login.
type HostAnswer struct {
	Address string // host and port, or the directory of a Unix socket
	Standby bool
	Started time.Time // when the server was started: the same for two names of one server
	Err     error     // nil: it answers
}

// Ask asks all hosts of the cluster at once, and returns their answers in the order of the hosts. A
// host that has not answered within ConnectTimeout has not answered.
func (p *Pool) Ask(ctx context.Context) []HostAnswer {
	ctx, cancel := context.WithTimeout(ctx, ConnectTimeout)
	defer cancel()
	answers := make([]HostAnswer, len(p.hosts))
	var group sync.WaitGroup
	for i, h := range p.hosts {
		group.Go(func() {
			network, address := pgconn.NetworkAddress(h.config.Host, h.config.Port)
			if network == "unix" {
				address = h.config.Host
			}
			answers[i].Address = address
			c, err := h.connect(ctx, "")
			if err != nil {
				answers[i].Err = err
				return
			}
			defer c.CloseNow()
			answers[i].Standby = c.Standby
			answers[i].Err = c.QueryRow(ctx, "select pg_postmaster_start_time()").Scan(&answers[i].Started)
		})
	}
	group.Wait()
	return answers
}

// WithServersPath runs read on a new connection to the primary whose search_path is not pinned. The
// owner of the database can choose that, so read has to qualify the name of everything, operators
// included.
func (p *Pool) WithServersPath(ctx context.Context, read func(context.Context, *pgx.Conn) error) error {
	ctx, cancel := context.WithTimeout(ctx, reusedAnswers)
	defer cancel()
	h := p.hosts[p.primary()]
	config := h.config.Copy()
	config.Password = h.password.get()
	path, chosen := config.RuntimeParams["search_path"]
	pin(config, int(h.major.Load())) // while the version is unknown, what every version knows
	delete(config.RuntimeParams, "search_path")
	if chosen {
		config.RuntimeParams["search_path"] = path
	}
	raw, _, err := connectMetered(ctx, config)
	if err != nil {
		return err
	}
	defer (&Conn{Conn: raw}).CloseNow()
	return read(ctx, raw)
}
