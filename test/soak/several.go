//go:build linux

package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/daypass/daypass/test/sitetest"
)

// With -servers, three servers and an etcd of three members are one service behind a TCP balancer.
// Clients of a balanced service try again, and so do clients here. So no fault excuses a logon or a
// call that fails for longer than the bounds below, except an outage of etcd itself. Work in a
// session may fail only if the session's own server was killed or was asked to end it.

const (
	serverCount = 3
	// within is the longest time for which a client may have to keep trying.
	within = 10 * time.Second
	// tryPatience is how long a client waits for one attempt, as connect_timeout=4 does.
	tryPatience = 4 * time.Second
	// shutdownDelay is how long a server that is stopping still accepts logons, until the balancer
	// has noticed.
	shutdownDelay = 3 * time.Second
	// sessionTotal is session_limits.total of the cluster.
	sessionTotal = 90 * time.Second
	// checkInterval and checkTimeout are those of the balancer's health checks. A server is taken
	// out after two failed ones, and put in again after one that succeeds.
	checkInterval = 500 * time.Millisecond
	checkTimeout  = time.Second
)

// several is the site of three servers. It is safe for concurrent use, except where a method says
// otherwise.
type several struct {
	*load
	etcd     *etcd
	calls    *proxy // the balancer of the API; that of the gateway is stack.front
	servers  [serverCount]*server
	control  control
	binaries [2]string // the versions before and after a rolling upgrade
	releases map[string]string

	// restoring is held for reading during a revocation, which a restore of etcd would lose.
	restoring sync.RWMutex

	mu      sync.Mutex           // guards the fields below
	voided  map[string]time.Time // signing keys that were revoked, and since when
	tries   map[string]int       // failed attempts of honest clients, by how they failed
	logons  []sample             // how long clients took to get in
	revoked []*pass
}

type sample struct{ begin, end time.Time }

// server is one of the servers: an address, a directory, and one process after another.
type server struct {
	slot                int
	dir                 string
	api, gateway, peers string
	ways                [members]*proxy // to each of etcd's members
	ready               atomic.Bool     // the balancer uses it

	mu      sync.Mutex // guards the fields below
	process *sitetest.Process
	binary  string
	lives   []life
}

func (s *server) config() string { return s.dir + "/daypass.yaml" }
func (s *server) log() string    { return s.dir + "/daypass.log" }

func (s *server) running() *sitetest.Process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.process
}

// class returns the class of the work in the server's sessions.
func (s *server) class() class { return classSession << s.slot }

// startSeveral starts everything but the load.
func startSeveral(ctx context.Context, o options, say func(string, ...any)) (_ *several, err error) {
	st, err := startDatabase(ctx, o.daypass, o.postgres)
	if err != nil {
		return nil, err
	}
	v := &several{load: &load{stack: st, ledger: newLedger(time.Now, say), seed: o.seed}, voided: map[string]time.Time{}, tries: map[string]int{}, releases: map[string]string{}}
	defer func() {
		if err != nil {
			v.stop()
		}
	}()
	v.binaries = [2]string{st.binary, st.binary}
	if o.oldBinary != "" {
		if v.binaries[0], err = filepath.Abs(o.oldBinary); err != nil {
			return nil, err
		}
	}
	for _, binary := range v.binaries {
		text, err := exec.CommandContext(ctx, binary, "version").Output()
		if err != nil {
			return nil, err
		}
		v.releases[binary] = strings.TrimSpace(string(text))
	}
	if v.etcd, err = startEtcd(ctx, st.Path("etcd")); err != nil {
		return nil, err
	}
	var key [32]byte
	_, _ = rand.Read(key[:])
	if err := st.Write("root.key", base64.StdEncoding.EncodeToString(key[:])+"\n"); err != nil {
		return nil, err
	}
	for i := range v.servers {
		s := &server{slot: i, dir: st.Path(fmt.Sprintf("server%d", i)), binary: v.binaries[0]}
		v.servers[i] = s
		for _, address := range []*string{&s.api, &s.gateway, &s.peers} {
			if *address, err = sitetest.FreeAddress(); err != nil {
				return nil, err
			}
		}
		for j, m := range v.etcd.members {
			if s.ways[j], err = newProxy(func() string { return strings.TrimPrefix(m.Client, "https://") }); err != nil {
				return nil, err
			}
		}
	}
	if st.front, err = newProxy(v.balance(func(s *server) string { return s.gateway })); err != nil {
		return nil, err
	}
	if v.calls, err = newProxy(v.balance(func(s *server) string { return s.api })); err != nil {
		return nil, err
	}
	st.front.attempts, v.calls.attempts = serverCount, serverCount
	st.API = v.calls.address()
	if err := v.configure(); err != nil {
		return nil, err
	}
	for _, s := range v.servers {
		if err := v.startServer(ctx, s); err != nil {
			return nil, err
		}
	}
	if v.gate, err = newGate(st, v.ledger, st.Path("etcd/ca.crt")); err != nil {
		return nil, err
	}
	v.issuer = newIssuer(v.ledger, st.API)
	v.issuer.again, v.gate.again, v.gate.class, v.gate.void = v.again, v.again, v.classOf, v.isVoid
	return v, nil
}

// configure writes the configuration of each server, and operator.yaml, which reaches etcd without
// a proxy.
func (v *several) configure() error {
	st := v.stack
	write := func(file string, s *server, endpoints []string) error {
		config := st.configuration()
		config["data"] = s.dir + "/data"
		config["api"] = map[string]any{"listen": s.api}
		config["gateway"] = map[string]any{"listen": s.gateway, "tls": map[string]any{"certificate": st.Path("etcd/gateway.crt"), "key": st.Path("etcd/gateway.key")}}
		config["peers"] = map[string]any{"listen": s.peers}
		config["root_key"] = map[string]any{"file": st.Path("root.key")}
		config["registry"] = map[string]any{"etcd": map[string]any{"endpoints": endpoints, "tls": map[string]any{
			"ca": st.Path("etcd/ca.crt"), "certificate": st.Path("etcd/" + etcdUser + ".crt"), "key": st.Path("etcd/" + etcdUser + ".key")}}}
		cluster := config["clusters"].([]any)[0].(map[string]any)
		cluster["upstream_password_file"] = st.Path("upstream.password")
		cluster["session_limits"] = map[string]any{"total": sessionTotal.String(), "notice": "0s"}
		text, err := json.MarshalIndent(config, "", "  ")
		if err != nil {
			return err
		}
		return st.Write(file, string(text))
	}
	var direct []string
	for _, m := range v.etcd.members {
		direct = append(direct, m.Client)
	}
	for i, s := range v.servers {
		var endpoints []string
		for _, way := range s.ways {
			endpoints = append(endpoints, "https://"+way.address())
		}
		if err := write(fmt.Sprintf("server%d/daypass.yaml", i), s, endpoints); err != nil {
			return err
		}
	}
	return write("operator.yaml", v.servers[0], direct)
}

// startServer starts a server, again and again as systemd does, until it is ready.
func (v *several) startServer(ctx context.Context, s *server) error {
	limited, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for {
		err := v.tryServer(limited, s)
		if err == nil {
			return nil
		}
		s.running().End(syscall.SIGKILL, 10*time.Second)
		v.ledger.count("starts repeated", 1)
		if !pause(limited, time.Second) {
			return fmt.Errorf("server %d does not start: %w", s.slot, err)
		}
	}
}

func (v *several) tryServer(ctx context.Context, s *server) error {
	log, err := os.OpenFile(s.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	p, err := sitetest.Run(log, []string{"GOTRACEBACK=all"}, s.binary, "serve", "--config", s.config(), "--drain", drain.String(), "--shutdown-delay", shutdownDelay.String())
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.process = p
	s.lives = append(s.lives, life{began: time.Now()})
	s.mu.Unlock()
	if err := p.Reachable(ctx, s.api, s.gateway); err != nil {
		s.mu.Lock()
		s.lives[len(s.lives)-1].ended, s.lives[len(s.lives)-1].how = time.Now(), "did not start"
		s.mu.Unlock()
		return err
	}
	for !s.ready.Load() {
		if !pause(ctx, 20*time.Millisecond) {
			return errors.New("it does not become ready")
		}
		s.ready.Store(s.healthy(ctx))
	}
	return nil
}

// endServer ends the process with a signal, and waits until it has ended.
func (v *several) endServer(s *server, signal syscall.Signal, within time.Duration, how string) error {
	p := s.running()
	v.stack.mu.Lock()
	v.stack.spentCPU += p.CPU()
	v.stack.mu.Unlock()
	forced := p.End(signal, within)
	s.mu.Lock()
	last := &s.lives[len(s.lives)-1]
	last.ended, last.how = time.Now(), how
	s.mu.Unlock()
	s.ready.Store(false)
	if forced {
		return fmt.Errorf("server %d was still there %v after %v", s.slot, within, signal)
	}
	if signal == syscall.SIGTERM && p.Err() != nil {
		return fmt.Errorf("server %d ended with %w after SIGTERM", s.slot, p.Err())
	}
	return nil
}

// balance returns a function that returns the address of each ready server in turn.
func (v *several) balance(of func(*server) string) func() string {
	var turn atomic.Uint64
	return func() string {
		for range v.servers {
			if s := v.servers[turn.Add(1)%serverCount]; s.ready.Load() {
				return of(s)
			}
		}
		return "127.0.0.1:1" // nothing listens there
	}
}

// healthy asks a server whether it is ready, as a balancer does.
func (s *server) healthy(ctx context.Context) bool {
	limited, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(limited, http.MethodGet, "http://"+s.api+"/readyz", nil)
	if err != nil {
		return false
	}
	request.Close = true
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return false
	}
	defer answer.Body.Close()
	_, _ = io.Copy(io.Discard, answer.Body)
	return answer.StatusCode == http.StatusOK
}

// check updates whether the balancer uses a server, until ctx ends.
func (s *server) check(ctx context.Context) {
	failed := 0
	for pause(ctx, checkInterval) {
		if s.healthy(ctx) {
			failed = 0
			s.ready.Store(true)
		} else if failed++; failed >= 2 {
			s.ready.Store(false)
		}
	}
}

// classOf returns the class of the work in a session, by the address of its client.
func (v *several) classOf(client net.Addr) class {
	target := v.stack.front.targetOf(client)
	for _, s := range v.servers {
		if s.gateway == target {
			return s.class()
		}
	}
	return classSession // a logon whose connection has already ended
}

// operate runs a command of the operator.
func (v *several) operate(ctx context.Context, args ...string) (string, error) {
	limited, cancel := context.WithTimeout(ctx, 90*time.Second)
	defer cancel()
	cmd := exec.CommandContext(limited, v.stack.binary, append(args, "--config", v.stack.Path("operator.yaml"))...)
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("daypass %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(problems.String()))
	}
	return out.String(), nil
}

func (v *several) stop() {
	for _, s := range v.servers {
		if s == nil {
			continue
		}
		s.running().End(syscall.SIGKILL, 10*time.Second)
		for _, way := range s.ways {
			if way != nil {
				way.close()
			}
		}
	}
	if v.etcd != nil {
		v.etcd.stop()
	}
	if v.calls != nil {
		v.calls.close()
	}
	v.stack.stop()
}

func portOf(address string) int {
	_, port, _ := net.SplitHostPort(address)
	n, _ := strconv.Atoi(port)
	return n
}
