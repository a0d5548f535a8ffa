package api

import (
	"context"
	"net/http"
	"net/netip"
	"runtime"
	"time"

	"github.com/daypass/daypass/internal/admission"
	"github.com/daypass/daypass/internal/awsquery"
	"github.com/daypass/daypass/internal/throttle"
)

// Limits bound what callers can take. A zero value means no limit.
type Limits struct {
	// Principal is what one IAM user or one IAM role may call. The sessions of a
	// role share it: their names are the caller's to choose.
	Principal throttle.Limit
	// Address is how many calls one address may have in progress. It is all that
	// is known of a caller before the signature is verified. An IPv6 address
	// counts as its /64.
	Address int
}

const (
	maxPrincipals = 1 << 16
	maxAddresses  = 1 << 16
	// A call is a fraction of a millisecond of work and no waiting. Ones that
	// have waited this long will not be the last.
	workWait = 100 * time.Millisecond
)

// What strangers can have written to the audit log, one address and all of them.
var (
	strangerLines    = throttle.Limit{Rate: 10, Burst: 1000}
	allStrangerLines = throttle.Limit{Rate: 100, Burst: 10_000}
)

var (
	errThrottled = &awsquery.Error{Code: "Throttling", Status: http.StatusBadRequest,
		Message: "Rate exceeded"}
	errOverload = &awsquery.Error{Code: "ServiceUnavailable", Status: http.StatusServiceUnavailable,
		Message: "The server has more calls than it can answer at once. Try again in a moment."}
	errAddressBusy = &awsquery.Error{Code: "ServiceUnavailable", Status: http.StatusServiceUnavailable,
		Message: "Too many calls from this address at once. Try again in a moment."}
)

// pressure is what a Handler has in progress.
type pressure struct {
	principals *throttle.Keys[string]
	addresses  *throttle.Keys[netip.Addr]
	work       *throttle.Gate  // calls at work: as many as the machine has use for
	outside    *outside        // calls that may wait for an identity provider
	large      *admission.Room // large bodies while they are read

	strangers *throttle.Lines // in the audit log, of calls by nobody knows whom
}

func newPressure() *pressure {
	cpus := runtime.GOMAXPROCS(0)
	return &pressure{
		principals: throttle.NewKeys[string](throttle.Limit{}, maxPrincipals),
		addresses:  throttle.NewKeys[netip.Addr](throttle.Limit{}, maxAddresses),
		work:       throttle.NewGate(32*cpus, 128*cpus, workWait),
		outside:    newOutside(outsidePlaces),
		large:      admission.NewRoom(largePlaces, largeShare),

		strangers: throttle.NewLines(strangerLines, allStrangerLines),
	}
}

// SetLimits changes the limits, from the next call on. A Handler begins with
// none.
func (h *Handler) SetLimits(l Limits) {
	h.pressure.principals.SetLimit(l.Principal)
	h.pressure.addresses.SetLimit(throttle.Limit{Concurrent: l.Address})
}

// Pressure is a moment's picture of the calls in progress.
type Pressure struct {
	Work, Outside, Large throttle.GateStats
}

// Pressure takes one. Outside is the sum over the identity providers.
func (h *Handler) Pressure() Pressure {
	p := h.pressure
	large := p.large.Stats()
	return Pressure{Work: p.work.Stats(), Outside: p.outside.stats(),
		Large: throttle.GateStats{Slots: large.Limit, Busy: large.Open, Shed: large.Refused}}
}

// enter takes a place at g for the rest of the call, or until leave.
func (c *call) enter(g *throttle.Gate) error {
	ctx := c.http.Context()
	if ctx == nil {
		ctx = context.Background()
	}
	if !g.Enter(ctx) {
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

// admitAddress is the first thing asked of a call. Its refusals are not recorded:
// nobody has done anything yet, and a flood of them is not to fill the disk.
func (c *call) admitAddress() (leave func(), err error) {
	network := admission.Network(c.source.address)
	pass, verdict := c.handler.pressure.addresses.Enter(network, time.Now())
	if verdict != throttle.Admitted {
		c.unrecorded = true
		return nil, errAddressBusy
	}
	return func() { c.handler.pressure.addresses.Leave(network, pass) }, nil
}

// admitPrincipal asks whether the caller, now known, may make one more call. Of
// the refusals of a principal one a second is recorded.
func (c *call) admitPrincipal() (leave func(), err error) {
	key := c.caller.PrincipalARN
	pass, verdict := c.handler.pressure.principals.Enter(key, time.Now())
	if verdict != throttle.Admitted {
		c.unrecorded = verdict == throttle.RefusedAgain
		return nil, errThrottled
	}
	return func() { c.handler.pressure.principals.Leave(key, pass) }, nil
}
