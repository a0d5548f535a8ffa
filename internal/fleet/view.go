package fleet

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/daypass/daypass/internal/keyring"
	"github.com/daypass/daypass/internal/registry"
)

// view is the content of all records at one moment, with earlier statements that are
// still valid. A record that vanished without being revoked is remembered: a signer
// until its certificate expires, the shared secrets until later ones appear.
type view struct {
	shared       *keyring.Shared // the latest that were seen; nil: none yet
	sharedRecord registry.Record // the current record; without a key: it does not exist
	sharedThere  *keyring.Shared // what is in sharedRecord; nil: it is not believed
	sharedRoot   string          // the root key that sharedThere is sealed under

	signers map[string]*signer
	revoked map[string]*revoked
	servers map[string]*server
	// seen is the latest revision of a record of a key.
	seen     uint64
	problems map[string]error           // of records that are not believed, by key
	unread   map[string]registry.Record // these records
}

type signer struct {
	signerStatement
	record registry.Record
	value  []byte    // of the record that the statement is from
	there  bool      // in the registry
	since  time.Time // when this process first saw this state of the record; monotonic
}

type revoked struct {
	revokedStatement
	record registry.Record
	there  bool
	since  time.Time
}

type server struct {
	serverStatement
	record registry.Record
	since  time.Time     // when this process first saw this announcement; monotonic
	offset time.Duration // of its clock, from this process's
	gone   bool          // has no record; kept so that a copy of its announcement is recognized
}

func newView() *view {
	return &view{signers: map[string]*signer{}, revoked: map[string]*revoked{}, servers: map[string]*server{},
		problems: map[string]error{}, unread: map[string]registry.Record{}}
}

// next returns the view that follows before. records are all current records; renewed reports
// whether the registry's revisions may have gone back since.
func (before *view) next(roots *keyring.Roots, records []registry.Record, now time.Time, renewed bool) *view {
	v := newView()
	v.shared = before.shared
	if !renewed {
		v.seen = before.seen
	}
	at := time.Now()
	for _, record := range records {
		if strings.HasPrefix(record.Key, keyPrefix) {
			v.seen = max(v.seen, record.Revision)
		}
		if err := v.add(before, roots, record, now, at); err != nil {
			v.problems[record.Key], v.unread[record.Key] = err, record
		}
	}
	// Keep earlier statements for as long as they are valid.
	for id, s := range before.signers {
		if v.signers[id] == nil && now.Before(s.until()) {
			gone := *s
			gone.there = false
			v.signers[id] = &gone
		}
	}
	for id, r := range before.revoked {
		if v.revoked[id] == nil && now.Before(before.revokedUntil(id)) {
			gone := *r
			gone.there = false
			v.revoked[id] = &gone
		}
	}
	for id, s := range before.servers {
		if v.servers[id] == nil && time.Since(s.since) < buried {
			gone := *s
			gone.gone = true
			v.servers[id] = &gone
		}
	}
	return v
}

// revokedUntil returns the time until which the revocation of a key must be kept. The writer of the
// revocation may not have seen the key's latest certificate.
func (v *view) revokedUntil(id string) time.Time {
	until := v.revoked[id].Until
	if s := v.signers[id]; s != nil && s.until().After(until) {
		until = s.until()
	}
	return until
}

func (v *view) add(before *view, roots *keyring.Roots, record registry.Record, now, at time.Time) error {
	kind, id := split(record.Key)
	switch kind {
	case sharedKey:
		v.sharedRecord = record
		if before.sharedRecord.Revision == record.Revision && before.sharedThere != nil {
			v.sharedThere, v.sharedRoot = before.sharedThere, before.sharedRoot
			return nil
		}
		shared, under, err := openShared(roots, record)
		if err != nil {
			return err
		}
		v.sharedThere, v.sharedRoot = shared, under
		// An older copy, from a backup for instance, changes nothing.
		if v.shared == nil || shared.After(v.shared) {
			v.shared = shared
		}
	case signerPrefix:
		if old := before.signers[id]; old != nil && old.there && old.record.Revision == record.Revision {
			v.signers[id] = old
			return nil
		}
		statement, err := readSigner(roots, record)
		if err != nil {
			return err
		}
		next := &signer{statement, record, record.Value, true, at}
		if old := before.signers[id]; old != nil && old.Certified.After(statement.Certified) {
			// Someone has replaced a certificate with an earlier one.
			next.signerStatement, next.value = old.signerStatement, old.value
		}
		v.signers[id] = next
	case revokedPrefix:
		if old := before.revoked[id]; old != nil && old.there && old.record.Revision == record.Revision {
			v.revoked[id] = old
			return nil
		}
		statement, err := readRevoked(roots, record)
		if err != nil {
			return err
		}
		v.revoked[id] = &revoked{statement, record, true, at}
	case serverPrefix:
		old := before.servers[id]
		if old != nil && !old.gone && old.record.Revision == record.Revision {
			v.servers[id] = old
			return nil
		}
		statement, err := readServer(roots, record)
		if err != nil {
			return err
		}
		next := &server{serverStatement: statement, record: record, since: at, offset: statement.Clock.Sub(now)}
		if old != nil && !statement.after(&old.serverStatement) {
			next.serverStatement, next.since, next.offset = old.serverStatement, old.since, old.offset // a repetition, not news
		}
		v.servers[id] = next
	}
	return nil
}

func split(key string) (kind, id string) {
	for _, kind := range []string{signerPrefix, revokedPrefix, serverPrefix} {
		if id, ok := strings.CutPrefix(key, kind); ok {
			return kind, id
		}
	}
	return key, ""
}

// live lists the servers whose announcements are recent, by name.
func (v *view) live() []*server { return v.liveAt(time.Now()) }

// liveAt lists the servers whose announcements were recent at a time.
func (v *view) liveAt(at time.Time) []*server {
	var list []*server
	for _, id := range slices.Sorted(maps.Keys(v.servers)) {
		if s := v.servers[id]; !s.gone && at.Sub(s.since) < silence {
			list = append(list, s)
		}
	}
	return list
}

// resume makes the servers that were alive when the registry was last read count as live, as if
// they had just announced themselves. Either they could not do so, or this server could not see
// it.
func (v *view) resume(last time.Time) {
	at := time.Now()
	for _, s := range v.liveAt(last) {
		again := *s
		again.since = at
		v.servers[s.ID] = &again
	}
}

// behind names the live servers, except self, that have not read a revision of a key.
func (v *view) behind(revision uint64, self string) []string {
	var names []string
	for _, s := range v.live() {
		if s.ID != self && s.Seen < revision {
			names = append(names, s.ID)
		}
	}
	return names
}

// without returns the names of the other live servers that lack the given root key, and so do not
// believe what it signs.
func (v *view) without(root, self string) []string {
	var names []string
	for _, s := range v.live() {
		if s.ID != self && len(s.Roots) > 0 && !slices.Contains(s.Roots, root) {
			names = append(names, s.ID)
		}
	}
	return names
}

// sealsWith reports whether another live server seals under the root key: while root keys are
// replaced, the first root key differs between servers.
func (v *view) sealsWith(root, self string) bool {
	return slices.ContainsFunc(v.live(), func(s *server) bool { return s.ID != self && len(s.Roots) > 0 && s.Roots[0] == root })
}

// known returns the keys that check credentials.
func (v *view) known(now time.Time) []keyring.Public {
	var list []keyring.Public
	for _, id := range slices.Sorted(maps.Keys(v.signers)) {
		s := v.signers[id]
		if v.revoked[id] == nil && s.Epoch >= v.shared.Floor() && now.Before(s.until()) {
			list = append(list, keyring.Public{Key: s.Public, Until: s.until()})
		}
	}
	return list
}

// fingerprint returns a value that differs between different keyrings.
func (v *view) fingerprint(now time.Time) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d %x", v.shared.Serial(), sha256.Sum256(v.shared.Marshal()))
	for _, p := range v.known(now) {
		fmt.Fprintf(&b, " %x %d", p.Key, p.Until.Unix())
	}
	return b.String()
}
