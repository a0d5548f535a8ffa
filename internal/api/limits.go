package api

import (
	"cmp"
	"crypto/sha256"
	"net/http"
	"net/netip"
	"runtime"
	"time"

	"github.com/daypass/daypass/internal/admission"
	"github.com/daypass/daypass/internal/audit"
	"github.com/daypass/daypass/internal/awsquery"
	"github.com/daypass/daypass/internal/throttle"
)

// Limits bound what callers can use. A zero value means no limit.
type Limits struct {
	// Principal bounds the calls of one IAM user or one IAM role, and what their calls
	// write to the audit log. All sessions of a role share it, because callers choose
	// session names. One subject of an identity provider has an eighth of it for calls
	// with its tokens; all subjects of a provider together may write as much as one
	// principal.
	Principal throttle.Limit
	// Address is how many calls one address may have in progress. Before the signature is
	// verified, the address is all that is known of a caller. An IPv6 address counts as its
	// /64.
	Address int
}

const (
	maxPrincipals = 1 << 16
	maxAddresses  = 1 << 16
	// Apart from waiting, a call takes a fraction of a millisecond. If a call has waited this long,
	// the server is overloaded.
	workWait = 100 * time.Millisecond
)

// Subjects is the divisor of a principal's limit for one subject of an identity
// provider.
const Subjects = 8

// Bounds on the audit lines of unauthenticated callers: for one address, for one access
// key id or subject that they name, and for all together. They do not change.
var (
	strangerLines    = throttle.Limit{Rate: 10, Burst: 1000, Bytes: 4 << 10, BytesBurst: 1 << 20}
	AllStrangerLines = throttle.Limit{Rate: 100, Burst: 10_000, Bytes: 32 << 10, BytesBurst: 8 << 20}
)

var (
	errThrottled = &awsquery.Error{Code: "Throttling", Status: http.StatusBadRequest,
		Message: "Rate exceeded"}
	errOverload = &awsquery.Error{Code: "ServiceUnavailable", Status: http.StatusServiceUnavailable,
		Message: "The server has more calls than it can answer at once. Try again in a moment."}
	errAddressBusy = &awsquery.Error{Code: "ServiceUnavailable", Status: http.StatusServiceUnavailable,
		Message: "Too many calls from this address at once. Try again in a moment."}
)

// pressure counts what a Handler has in progress.
type pressure struct {
	principals *throttle.Keys[string]
	providers  *throttle.Keys[string] // identity providers, by issuer
	subjects   *throttle.Keys[string] // of identity providers, see federatedKey
	addresses  *throttle.Keys[netip.Addr]
	work       *throttle.Gate         // calls that are being computed, as many as the machine has processors for
	outside    *outside               // calls that may wait for an identity provider
	large      *admission.Room        // large bodies that are being read
	peers      *throttle.Gate         // calls that wait for other servers
	askers     *throttle.Keys[string] // the same, by principal

	simulations *throttle.Gate         // policies that are being simulated
	simulators  *throttle.Keys[string] // the same, and answers on their way, by principal

	strangers *throttle.Lines // audit lines of unauthenticated callers
}

func newPressure() *pressure {
	cpus := runtime.GOMAXPROCS(0)
	return &pressure{
		principals: throttle.NewKeys[string](throttle.Limit{}, maxPrincipals),
		providers:  throttle.NewKeys[string](throttle.Limit{}, maxPrincipals),
		subjects:   throttle.NewKeys[string](throttle.Limit{}, maxPrincipals),
		addresses:  throttle.NewKeys[netip.Addr](throttle.Limit{}, maxAddresses),
		work:       throttle.NewGate(32*cpus, 128*cpus, workWait),
		outside:    newOutside(outsidePlaces),
		large:      admission.NewRoom(largePlaces, largeShare),
		peers:      throttle.NewGate(peerPlaces, 2*peerPlaces, time.Second),
		askers:     throttle.NewKeys[string](throttle.Limit{Concurrent: peerShare}, maxPrincipals),

		simulations: throttle.NewGate(max(1, cpus/2), simulationQueue, simulationWait),
		simulators:  throttle.NewKeys[string](throttle.Limit{Concurrent: simulationShare}, maxPrincipals),

		strangers: throttle.NewLines(strangerLines, AllStrangerLines),
	}
}

// SetLimits sets the limits for calls from now on. A new Handler has none.
func (h *Handler) SetLimits(l Limits) {
	h.pressure.principals.SetLimit(l.Principal)
	// The number of calls is not limited by provider: anyone may be able to get a token
	// from it.
	h.pressure.providers.SetLimit(throttle.Limit{Bytes: l.Principal.Bytes, BytesBurst: l.Principal.BytesBurst})
	h.pressure.subjects.SetLimit(l.Principal.Share(Subjects))
	h.pressure.addresses.SetLimit(throttle.Limit{Concurrent: l.Address})
}

// Pressure is the number of calls in progress at one moment.
type Pressure struct {
	Work, Outside, Large, Peers, Simulations throttle.GateStats
}

// Pressure returns the current numbers. Outside is the sum over all identity providers.
func (h *Handler) Pressure() Pressure {
	p := h.pressure
	large := p.large.Stats()
	return Pressure{Work: p.work.Stats(), Outside: p.outside.stats(), Peers: p.peers.Stats(), Simulations: p.simulations.Stats(),
		Large: throttle.GateStats{Slots: large.Limit, Busy: large.Open, Shed: large.Refused}}
}

// enter takes a place at g until the end of the call, or until leave.
func (c *call) enter(g *throttle.Gate) error {
	if !g.Enter(c.http.Context()) {
		c.unrecorded = true
		return errOverload
	}
	c.gate = g
	return nil
}

// leave gives up the place that enter took.
func (c *call) leave() {
	if c.gate != nil {
		c.gate.Leave()
		c.gate = nil
	}
}

// admitAddress applies the first limit. Its refusals are not recorded: nothing has been
// done yet, and a flood of calls must not fill the disk.
func (c *call) admitAddress() error {
	network := admission.Network(c.source.address)
	if admit(c, c.handler.pressure.addresses, network) != throttle.Admitted {
		c.unrecorded = true
		return errAddressBusy
	}
	return nil
}

// admitPrincipal applies the limit of the authenticated caller.
func (c *call) admitPrincipal() error {
	return c.admitAs(c.handler.pressure.principals, c.caller.PrincipalARN)
}

// admitFederated applies the limit of the holder of a verified web identity token.
func (c *call) admitFederated(provider, subject string) error {
	c.subject = federatedKey(provider, subject)
	if err := c.admitAs(c.handler.pressure.subjects, c.subject); err != nil {
		return err
	}
	return c.admitAs(c.handler.pressure.providers, provider)
}

// federatedKey returns a key of bounded length for a subject of an identity provider.
func federatedKey(provider, subject string) string {
	sum := sha256.Sum256([]byte(subject))
	return provider + " " + string(sum[:])
}

// admitAs counts the call for key until done, and charges its audit line to key. Only one
// of the calls that it refuses is recorded per key and second.
func (c *call) admitAs(keys *throttle.Keys[string], key string) error {
	if c.charged == nil {
		c.charged = c.space.charged[:0]
	}
	c.charged = append(c.charged, account{keys, key})
	verdict := admit(c, keys, key)
	if verdict != throttle.Admitted {
		c.unrecorded = verdict == throttle.RefusedAgain
		return errThrottled
	}
	return nil
}

// admit counts the call for key until done.
func admit[K comparable](c *call, keys *throttle.Keys[K], key K) throttle.Verdict {
	pass, verdict := keys.Enter(key, c.now)
	if verdict == throttle.Admitted {
		if c.leaves == nil {
			c.leaves = c.space.leaves[:0]
		}
		c.leaves = append(c.leaves, func() { keys.Leave(key, pass) })
	}
	return verdict
}

// account is where the audit line of a call is charged.
type account struct {
	keys *throttle.Keys[string]
	key  string
}

// peerPlaces is how many calls may wait for other servers at a time, and peerShare how many of them one
// principal may make. It takes no permission to cause them, and a server that hangs keeps each of them
// waiting for two seconds.
const (
	peerPlaces = 64
	peerShare  = 16
)

// sessionsElsewhere asks the other servers for their sessions: all, or the one with this identifier.
// Meanwhile the call gives up its place at work: calls that need no other server do not wait for one.
func (c *call) sessionsElsewhere(id string) (list []*Session, unanswered []string, err error) {
	p := c.handler.pressure
	pass, verdict := p.askers.Enter(c.caller.PrincipalARN, c.now)
	if verdict != throttle.Admitted {
		c.unrecorded = verdict == throttle.RefusedAgain
		return nil, nil, errThrottled
	}
	defer p.askers.Leave(c.caller.PrincipalARN, pass)
	c.leave()
	if !p.peers.Enter(c.http.Context()) {
		c.unrecorded = true
		return nil, nil, errOverload
	}
	list, unanswered = c.handler.config.Sessions.Elsewhere(c.http.Context(), id)
	p.peers.Leave()
	return list, unanswered, c.enter(p.work)
}

// A simulation takes a hundred times as long as other calls, and its answer has up to a megabyte. So they
// take turns on half of the processors, simulationQueue of them wait for theirs, and one principal may
// have simulationShare of them, from its turn in the queue until the client has read the answer.
const (
	simulationQueue = 64
	simulationWait  = 5 * time.Second
	simulationShare = 16
)

// enterSimulation waits for the turn of a simulation, and returns the function that ends it. The call
// gives up its place at work, so that others are not delayed.
func (c *call) enterSimulation() (leave func(), err error) {
	p := c.handler.pressure
	if verdict := admit(c, p.simulators, c.caller.PrincipalARN); verdict != throttle.Admitted {
		c.unrecorded = verdict == throttle.RefusedAgain
		return nil, errThrottled
	}
	c.leave()
	if !p.simulations.Enter(c.http.Context()) {
		c.unrecorded = true
		return nil, errOverload
	}
	return p.simulations.Leave, nil
}

// done releases the places and counts of the call.
func (c *call) done() {
	c.leave()
	for _, leave := range c.leaves {
		leave()
	}
}

// pays reports whether the caller is charged for the line of a record. The lines of callers who
// are authorised, or known to have an access key, are always written; such a caller pays before
// its next call.
func (c *call) pays(record *audit.CallRecord) bool {
	return c.caller != nil && c.subject == "" || record.ErrorCode == ""
}

// mayRecord reports whether to write the record's line. The lines of callers who do not pay are
// bounded; the next line that is written has the number of lines left out.
func (c *call) mayRecord(record *audit.CallRecord) bool {
	if c.pays(record) {
		return true
	}
	who := throttle.Stranger{Address: admission.Network(c.source.address), Name: cmp.Or(c.subject, c.claimed)}
	write, omitted := c.handler.pressure.strangers.Next(who, record.Size(), c.now)
	record.Omitted = omitted
	return write
}

// record writes the record's line, and charges it.
func (c *call) record(record *audit.CallRecord) error {
	size, err := c.handler.config.Audit.Call(record)
	if c.pays(record) {
		for _, a := range c.charged {
			a.keys.Charge(a.key, size, c.now)
		}
	}
	return err
}
