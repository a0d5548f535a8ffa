//go:build linux

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/daypass/daypass/internal/client"
)

// trouble is one kind of fault of several servers. Two series of faults run at the same time, one
// of the servers and one of etcd and the keys, so a server and a member can be down together.
type trouble struct {
	name   string
	weight int
	do     func(*several, context.Context, *rand.Rand) error
}

var serverTroubles = []trouble{
	{"a server killed", 4, (*several).killServer},
	{"a server frozen", 4, (*several).freezeServer},
	{"a server cut from etcd", 4, (*several).cutServer},
	{"the way to etcd slow", 2, (*several).slowServer},
	{"a server stopped and started", 2, (*several).restartServer},
	{"a rolling upgrade", 2, (*several).upgrade},
	{"a reload", 2, (*several).reload},
}

var sharedTroubles = []trouble{
	{"an etcd member killed", 4, (*several).killMember},
	{"an etcd member frozen", 2, (*several).freezeMember},
	{"an etcd member lost and added again", 2, (*several).replaceMember},
	{"etcd without a majority", 2, (*several).loseMajority},
	{"etcd restored from a snapshot", 1, (*several).restoreEtcd},
	{"keys rotated", 4, (*several).rotate},
	{"a key revoked", 2, (*several).revokeKey},
}

// trouble causes faults until ctx ends.
func (v *several) trouble(ctx context.Context) {
	var all sync.WaitGroup
	for name, kinds := range map[string][]trouble{"servers": serverTroubles, "shared": sharedTroubles} {
		all.Go(func() { v.series(ctx, random(v.seed, name), kinds) })
	}
	all.Wait()
}

func (v *several) series(ctx context.Context, r *rand.Rand, kinds []trouble) {
	var bag []trouble
	for pause(ctx, between(r, 2*time.Second, 8*time.Second)) {
		if len(bag) == 0 {
			for _, kind := range kinds {
				for range kind.weight {
					bag = append(bag, kind)
				}
			}
			r.Shuffle(len(bag), func(i, j int) { bag[i], bag[j] = bag[j], bag[i] })
		}
		next := bag[0]
		bag = bag[1:]
		own := rand.New(rand.NewPCG(r.Uint64(), r.Uint64()))
		v.ledger.count("faults: "+next.name, 1)
		v.ledger.say("fault: %s", next.name)
		if err := next.do(v, ctx, own); err != nil && ctx.Err() == nil {
			v.ledger.violate("a fault did not go as it should", "%s: %v", next.name, err)
		}
	}
}

// during opens an excuse that concerns some servers, causes the fault, and closes it. The fault
// does not excuse that work in sessions fails.
func (v *several) during(kind string, concerns class, do func() error) error {
	e := v.ledger.open(kind, 0, time.Second, time.Time{})
	v.ledger.mu.Lock()
	e.concerns = concerns
	v.ledger.mu.Unlock()
	defer v.ledger.close(e)
	return do()
}

const everyServer = classSession | classSession<<1 | classSession<<2

func (v *several) any(r *rand.Rand) *server { return v.servers[r.IntN(serverCount)] }

func (v *several) killServer(ctx context.Context, r *rand.Rand) error {
	s := v.any(r)
	gone := v.ledger.open("a server killed", s.class(), time.Second, time.Time{})
	v.ledger.mu.Lock()
	gone.concerns = s.class()
	v.ledger.mu.Unlock()
	err := v.endServer(s, syscall.SIGKILL, 10*time.Second, "killed")
	if err != nil {
		v.ledger.close(gone)
		return err
	}
	pause(ctx, between(r, 0, 5*time.Second))
	err = v.startServer(context.WithoutCancel(ctx), s)
	v.ledger.close(gone)
	return err
}

// freezeServer stops a server's process, sometimes for longer than its announcement counts.
func (v *several) freezeServer(ctx context.Context, r *rand.Rand) error {
	s := v.any(r)
	return v.during("a server frozen", s.class(), func() error {
		s.running().Signal(syscall.SIGSTOP)
		pause(ctx, between(r, time.Second, 20*time.Second))
		s.running().Signal(syscall.SIGCONT)
		return v.recover(ctx, s)
	})
}

// recoveredWithin is how long a server may take to be ready after a fault.
const recoveredWithin = 5 * time.Second

// recover waits until the balancer uses a server again.
func (v *several) recover(ctx context.Context, s *server) error {
	begin := time.Now()
	base := begin
	for {
		if s.healthy(ctx) {
			s.ready.Store(true)
			v.ledger.slowest("the longest time until a server was ready again after it was frozen or cut off", time.Since(begin))
			return nil
		}
		if v.memberTrouble(base, time.Now()) {
			base = time.Now()
		}
		if time.Since(base) > recoveredWithin+v.control.slack(base) {
			return fmt.Errorf("server %d is not ready after %v", s.slot, time.Since(begin).Round(time.Millisecond))
		}
		if !pause(ctx, 50*time.Millisecond) {
			return nil
		}
	}
}

// memberTrouble reports whether something was wrong with etcd.
func (v *several) memberTrouble(begin, end time.Time) bool {
	return slices.ContainsFunc(sharedTroubles, func(t trouble) bool {
		return strings.Contains(t.name, "etcd") && v.ledger.active(t.name, begin, end)
	})
}

// cutServer cuts a server off from all members: packets vanish, or connections are refused.
func (v *several) cutServer(ctx context.Context, r *rand.Rand) error {
	s := v.any(r)
	return v.during("a server cut from etcd", s.class(), func() error {
		vanish := r.IntN(2) == 0
		for _, way := range s.ways {
			way.change(func(w *weather) {
				if vanish {
					w.stall = make(chan struct{})
				} else {
					w.refuse = true
				}
			})
			if !vanish {
				for _, l := range way.some(r, 2) {
					l.cut()
				}
			}
		}
		pause(ctx, between(r, time.Second, 25*time.Second))
		for _, way := range s.ways {
			way.calm()
		}
		return v.recover(ctx, s)
	})
}

// slowServer delays a server's traffic to etcd, within the limits in the documentation. No client
// may fail because of it.
func (v *several) slowServer(ctx context.Context, r *rand.Rand) error {
	s := v.any(r)
	return v.during("the way to etcd slow", s.class(), func() error {
		for _, way := range s.ways {
			way.change(func(w *weather) { w.delay = between(r, 20*time.Millisecond, 120*time.Millisecond) })
		}
		pause(ctx, between(r, 3*time.Second, 12*time.Second))
		for _, way := range s.ways {
			way.calm()
		}
		return nil
	})
}

// replaceProcess stops a server in order, and starts it with the given binary.
func (v *several) replaceProcess(ctx context.Context, r *rand.Rand, kind string, s *server, binary string) error {
	limit := v.ledger.open(kind, s.class(), time.Second, time.Now().Add(shutdownDelay+drain-200*time.Millisecond))
	err := v.during(kind, s.class(), func() error {
		return v.endServer(s, syscall.SIGTERM, shutdownDelay+drain+15*time.Second+v.control.slack(time.Now()), "stopped")
	})
	v.ledger.close(limit)
	if err != nil {
		return err
	}
	pause(ctx, between(r, 0, time.Second))
	s.mu.Lock()
	s.binary = binary
	s.mu.Unlock()
	return v.startServer(context.WithoutCancel(ctx), s)
}

func (v *several) restartServer(ctx context.Context, r *rand.Rand) error {
	s := v.any(r)
	return v.replaceProcess(ctx, r, "a server stopped and started", s, s.binary)
}

// upgrade replaces one server after the other with the binary that they do not run.
func (v *several) upgrade(ctx context.Context, r *rand.Rand) error {
	next := v.binaries[0]
	if v.servers[0].binary == v.binaries[0] {
		next = v.binaries[1]
	}
	for _, i := range r.Perm(serverCount) {
		if err := v.replaceProcess(ctx, r, "a rolling upgrade", v.servers[i], next); err != nil {
			return err
		}
		v.ledger.count("servers upgraded", 1)
	}
	return nil
}

func (v *several) reload(_ context.Context, r *rand.Rand) error {
	s := v.any(r)
	s.running().Signal(syscall.SIGHUP)
	return nil
}

func (v *several) killMember(ctx context.Context, r *rand.Rand) error {
	m := v.etcd.members[r.IntN(members)]
	return v.during("an etcd member killed", 0, func() error {
		m.kill()
		pause(ctx, between(r, 0, 10*time.Second))
		if err := v.etcd.begin(m); err != nil {
			return err
		}
		return v.etcd.healthy(context.WithoutCancel(ctx), m)
	})
}

func (v *several) freezeMember(ctx context.Context, r *rand.Rand) error {
	m := v.etcd.members[r.IntN(members)]
	return v.during("an etcd member frozen", 0, func() error {
		m.process.Signal(syscall.SIGSTOP)
		pause(ctx, between(r, time.Second, 10*time.Second))
		m.process.Signal(syscall.SIGCONT)
		return v.etcd.healthy(context.WithoutCancel(ctx), m)
	})
}

func (v *several) replaceMember(ctx context.Context, r *rand.Rand) error {
	m := v.etcd.members[r.IntN(members)]
	return v.during("an etcd member lost and added again", 0, func() error {
		m.kill()
		pause(ctx, between(r, 0, 5*time.Second))
		return v.etcd.replace(context.WithoutCancel(ctx), m)
	})
}

func (v *several) loseMajority(ctx context.Context, r *rand.Rand) error {
	return v.during("etcd without a majority", everyServer, func() error {
		gone := v.etcd.members[:2]
		for _, m := range gone {
			m.kill()
		}
		pause(ctx, between(r, time.Second, 25*time.Second))
		for _, m := range gone {
			if err := v.etcd.begin(m); err != nil {
				return err
			}
		}
		return v.etcd.ready(context.WithoutCancel(ctx))
	})
}

// restoreEtcd restores a snapshot that is some seconds old, and sometimes rotates keys before that.
// Meanwhile nothing is revoked: the revocation would be lost, as the documentation says.
func (v *several) restoreEtcd(ctx context.Context, r *rand.Rand) error {
	v.restoring.Lock()
	defer v.restoring.Unlock()
	file := v.stack.Path(fmt.Sprintf("snapshot%d", v.etcd.wiped))
	if err := v.etcd.save(ctx, file); err != nil {
		return err
	}
	if r.IntN(2) == 0 {
		if err := v.rotate(ctx, r); err != nil {
			return err
		}
	}
	return v.during("etcd restored from a snapshot", everyServer, func() error {
		return v.etcd.restore(context.WithoutCancel(ctx), file)
	})
}

// rotate rotates the keys of all servers. A server that is dead or cut off may delay that.
func (v *several) rotate(ctx context.Context, r *rand.Rand) error {
	args := []string{"keys", "rotate"}
	if r.IntN(3) == 0 {
		args = append(args, "--upstream")
	}
	begin := time.Now()
	_, err := v.operate(ctx, args...)
	v.ledger.slowest("the longest rotation of keys", time.Since(begin))
	if err != nil && ctx.Err() == nil && (v.troubled(everyServer, begin.Add(-announced), time.Now()) || v.starting(begin.Add(-time.Second))) {
		v.ledger.count("rotations that named a server", 1)
		return nil
	}
	return err
}

// starting reports whether a server has started since a time.
func (v *several) starting(since time.Time) bool {
	return slices.ContainsFunc(v.servers[:], func(s *server) bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.lives[len(s.lives)-1].began.After(since.Add(-time.Minute))
	})
}

// revokeKey revokes the key that signed one credential. That credential must not work any more, and
// those of other servers must.
func (v *several) revokeKey(ctx context.Context, r *rand.Rand) error {
	v.restoring.RLock()
	defer v.restoring.RUnlock()
	p := v.issuer.issue(ctx, wish{user: userName(r.IntN(users))})
	if p == nil {
		return nil
	}
	key := signerOf(p)
	v.mu.Lock()
	v.voided[key] = time.Now()
	v.mu.Unlock()
	if _, err := v.operate(ctx, "keys", "revoke", key); err != nil {
		return err
	}
	answered := time.Now()
	if !pause(ctx, time.Until(answered.Add(revocationSeen))) {
		return nil
	}
	v.stayOut(ctx, p)
	v.ledger.count("keys revoked", 1)
	return nil
}

// counter compares `daypass servers` with the processes.
func (v *several) counter(ctx context.Context, r *rand.Rand) {
	for pause(ctx, between(r, 5*time.Second, 15*time.Second)) {
		begin := time.Now()
		text, err := v.operate(ctx, "servers", "--output", "json")
		end := time.Now()
		var answer struct {
			Servers []struct {
				Server  string
				Release string
				Since   time.Time
				Peers   string
				Seen    bool `json:"keys_seen"`
			}
			Differences map[string]string
		}
		switch {
		case ctx.Err() != nil:
			return
		case json.Unmarshal([]byte(text), &answer) != nil:
			if !v.memberTrouble(begin.Add(-announced), end) {
				v.ledger.violate("servers are not told right", "%v", err)
			}
			continue
		}
		v.ledger.count("lists of servers", 1)
		times := map[string]int{}
		for _, one := range answer.Servers {
			times[one.Peers]++
		}
		for _, s := range v.servers {
			s.mu.Lock()
			since, release := s.lives[len(s.lives)-1].began, v.releases[s.binary]
			s.mu.Unlock()
			if begin.Sub(since) < announced || v.troubled(s.class(), begin.Add(-announced), end) || v.blocked(begin.Add(-announced), end) {
				continue
			}
			if times[s.peers] != 1 {
				v.ledger.violate("servers are not told right", "server %d runs since %v and is listed %d times: %s", s.slot, since.Format(time.TimeOnly), times[s.peers], text)
				continue
			}
			for _, one := range answer.Servers {
				if one.Peers == s.peers && (!strings.Contains(release, one.Release) || one.Since.Before(since.Add(-2*time.Second))) {
					v.ledger.violate("servers are not told right", "server %d, %s, is listed as %+v", s.slot, release, one)
				}
			}
			v.ledger.count("servers found in a list", 1)
		}
		for about, text := range answer.Differences {
			if about == "clock" && (v.memberTrouble(begin.Add(-announced), end) || v.absent(begin.Add(-announced), end)) {
				v.ledger.count("clocks that seemed to differ because an announcement was held up", 1)
				continue
			}
			if about != "release" {
				v.ledger.violate("servers are not told right", "they differ in %s: %s", about, text)
			}
		}
	}
}

// lastRestore restores a snapshot that is older than a revocation, follows the documentation, and
// checks what works.
func (v *several) lastRestore(ctx context.Context) error {
	file := v.stack.Path("last-snapshot")
	if err := v.etcd.save(ctx, file); err != nil {
		return err
	}
	operator, err := v.operator()
	if err != nil {
		return err
	}
	before := v.issuer.issue(ctx, wish{user: userName(0)})
	lost := v.issuer.issue(ctx, wish{user: "undone0", create: true})
	if before == nil || lost == nil {
		return fmt.Errorf("no credential at the end")
	}
	if _, err := operator.Revoke(ctx, client.Selector{DBUser: lost.user, Cluster: cluster}); err != nil {
		return err
	}
	if _, err := v.operate(ctx, "keys", "rotate"); err != nil {
		return err
	}
	err = v.during("etcd restored from a snapshot", everyServer, func() error { return v.etcd.restore(ctx, file) })
	if err != nil {
		return err
	}
	// The servers put the keys back, so earlier credentials work.
	if s := v.gate.logon(ctx, before, true, pgx.QueryExecModeExec); s != nil {
		s.leave(false)
	}
	err = v.again(ctx, classCall, func(ctx context.Context) error {
		_, err := operator.Revoke(ctx, client.Selector{All: true})
		return err
	})
	if err != nil {
		return err
	}
	pause(ctx, revocationSeen)
	v.stayOut(ctx, lost)
	v.stayOut(ctx, before)
	return nil
}
