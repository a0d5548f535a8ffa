package api

import (
	"sync"

	"github.com/daypass/daypass/internal/directory"
	"github.com/daypass/daypass/internal/sts"
	"github.com/daypass/daypass/internal/throttle"
)

// outsidePlaces is how many calls of one identity provider may be verifying tokens at
// the same time. Package sts lets fewer wait for the provider's answer, so a provider
// that hangs delays neither other providers nor its own tokens whose keys are known.
const outsidePlaces = 64

// outside bounds the calls that are authenticated by an identity provider's token. Each
// provider has its own places. Safe for concurrent use.
type outside struct {
	places int

	mu    sync.Mutex
	gates map[string]*throttle.Gate // by the issuer of a configured provider; "" is for all other tokens. Guarded by mu.
}

func newOutside(places int) *outside {
	return &outside{places: places, gates: map[string]*throttle.Gate{}}
}

// gate returns the places for a token. Its issuer is not verified yet. Tokens of
// issuers that are not configured share one gate; they wait for no provider.
func (o *outside) gate(d *directory.Directory, token string) *throttle.Gate {
	issuer := sts.ClaimedIssuer(token)
	if _, known := d.Provider(issuer); !known {
		issuer = ""
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	g := o.gates[issuer]
	if g == nil {
		g = throttle.NewGate(o.places, o.places, workWait)
		o.gates[issuer] = g
	}
	return g
}

// stats returns the sum over all providers.
func (o *outside) stats() (sum throttle.GateStats) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, g := range o.gates {
		s := g.Stats()
		sum.Slots += s.Slots
		sum.Busy += s.Busy
		sum.Waiting += s.Waiting
		sum.Shed += s.Shed
	}
	return sum
}
