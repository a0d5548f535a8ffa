package api

import (
	"cmp"
	"context"
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

// Limits bound what callers can take. A zero value means no limit.
type Limits struct {
	// Principal is what one IAM user or one IAM role may call, and what may be
	// written to the audit log of its calls. The sessions of a role share it: their
	// names are the caller's to choose. One subject of an identity provider has an
	// eighth of it for the calls with its tokens; of all subjects of a provider
	// together as much is written as of one principal.
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

// Subjects is which part of a principal's limit one subject of an identity provider has.
const Subjects = 8

// What strangers can have written to the audit log: one address, or under the name of
// one access key or of one subject of an identity provider; and all of them. They do
// not change.
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

// pressure is what a Handler has in progress.
type pressure struct {
	principals *throttle.Keys[string]
	providers  *throttle.Keys[string] // identity providers, by issuer
	subjects   *throttle.Keys[string] // of identity providers, see federatedKey
	addresses  *throttle.Keys[netip.Addr]
	work       *throttle.Gate  // calls at work: as many as the machine has use for
	outside    *outside        // calls that may wait for an identity provider
	large      *admission.Room // large bodies while they are read

	strangers *throttle.Lines // audit lines of callers that have proved nothing
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

		strangers: throttle.NewLines(strangerLines, AllStrangerLines),
	}
}

// SetLimits changes the limits, from the next call on. A Handler begins with
// none.
func (h *Handler) SetLimits(l Limits) {
	h.pressure.principals.SetLimit(l.Principal)
	// Strangers may have tokens of a provider, too: their calls must not count.
	h.pressure.providers.SetLimit(throttle.Limit{Bytes: l.Principal.Bytes, BytesBurst: l.Principal.BytesBurst})
	h.pressure.subjects.SetLimit(l.Principal.Share(Subjects))
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
// nothing has been done yet, and a flood of them is not to fill the disk.
func (c *call) admitAddress() error {
	network := admission.Network(c.source.address)
	if admit(c, c.handler.pressure.addresses, network) != throttle.Admitted {
		c.unrecorded = true
		return errAddressBusy
	}
	return nil
}

// admitPrincipal asks whether the caller, now known, may make one more call.
func (c *call) admitPrincipal() error {
	return c.admitAs(c.handler.pressure.principals, c.caller.PrincipalARN)
}

// admitFederated asks whether the holder of a web identity token, now known to be
// genuine, may make one more call.
func (c *call) admitFederated(provider, subject string) error {
	c.subject = federatedKey(provider, subject)
	if err := c.admitAs(c.handler.pressure.subjects, c.subject); err != nil {
		return err
	}
	return c.admitAs(c.handler.pressure.providers, provider)
}

// federatedKey is a subject of an identity provider, of bounded length.
func federatedKey(provider, subject string) string {
	sum := sha256.Sum256([]byte(subject))
	return provider + " " + string(sum[:])
}

// admitAs has the call count for key, until done. What is written of it is charged to
// key as well. Of the refusals of a key one a second is recorded.
func (c *call) admitAs(keys *throttle.Keys[string], key string) error {
	c.charged = append(c.charged, account{keys, key})
	verdict := admit(c, keys, key)
	if verdict != throttle.Admitted {
		c.unrecorded = verdict == throttle.RefusedAgain
		return errThrottled
	}
	return nil
}

// admit enters key in keys, until done.
func admit[K comparable](c *call, keys *throttle.Keys[K], key K) throttle.Verdict {
	pass, verdict := keys.Enter(key, c.now)
	if verdict == throttle.Admitted {
		c.leaves = append(c.leaves, func() { keys.Leave(key, pass) })
	}
	return verdict
}

// account is what the audit line of a call is charged to.
type account struct {
	keys *throttle.Keys[string]
	key  string
}

// done gives back what the call has taken.
func (c *call) done() {
	c.leave()
	for _, leave := range c.leaves {
		leave()
	}
}

// mayRecord charges the record's line, and reports whether it is to be written. A
// caller that may do what it asks for, or is known to have an access key, is
// recorded always, and has to pay before its next call. Others have bounds, and the
// next line says how many of them have none.
func (c *call) mayRecord(record *audit.CallRecord) bool {
	size := record.Size()
	if c.caller != nil && c.subject == "" || record.ErrorCode == "" {
		for _, a := range c.charged {
			a.keys.Charge(a.key, size, c.now)
		}
		return true
	}
	who := throttle.Stranger{Address: admission.Network(c.source.address), Name: cmp.Or(c.subject, c.claimed)}
	write, omitted := c.handler.pressure.strangers.Next(who, size, c.now)
	record.Omitted = omitted
	return write
}
