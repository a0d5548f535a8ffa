package fleet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/daypass/daypass/internal/keyring"
	"github.com/daypass/daypass/internal/registry"
)

// Operator changes the shared records from outside the servers, for commands.
type Operator struct {
	Store registry.Store
	Roots *keyring.Roots
	Now   func() time.Time

	wrote *keyring.Shared // by the last Rotate; nil: none
}

// ErrLost is returned by Settled when what Rotate wrote has been replaced by a later change that
// was not based on it.
var ErrLost = errors.New("the new keys are lost: when they were made, an earlier state of etcd was read, as of a backup, and the servers have put " +
	"back what they know; or someone else has replaced all keys since: look at `daypass keys list`, and run the command again")

// ErrNoKeys is returned if no server has created keys yet, and none were imported.
var ErrNoKeys = errors.New("etcd has no keys of servers yet: the first server makes them when it starts, and `daypass keys move` takes those of a keyring file along")

// Key is one key of the installation.
type Key struct {
	keyring.Info
	Server string // whose key it is; empty: all servers'
	// Revoked reports that an operator revoked the key, so that it checks nothing.
	Revoked bool
}

func (o *Operator) read(ctx context.Context) (*view, error) {
	records, err := o.Store.List(ctx, prefix)
	if err != nil {
		return nil, fmt.Errorf("reading what the servers share: %w", err)
	}
	v := newView().next(o.Roots, records, o.Now(), true)
	if err := v.problems[sharedKey]; err != nil {
		return nil, unopened(err)
	}
	if v.shared == nil {
		return nil, ErrNoKeys
	}
	return v, nil
}

// Keys lists all keys: those of servers first, by server and age.
func (o *Operator) Keys(ctx context.Context) ([]Key, error) {
	v, err := o.read(ctx)
	if err != nil {
		return nil, err
	}
	now := o.Now()
	var list []Key
	for id, s := range v.signers {
		k := Key{Info: keyring.Info{Purpose: keyring.Credential, ID: id, Active: s.Created, Until: s.until(), Public: s.Public}, Server: s.Server}
		server := v.servers[s.Server]
		switch {
		case v.revoked[id] != nil:
			k.Revoked, k.Until, k.State = true, v.revoked[id].Revoked, keyring.Expired
		case !now.Before(s.until()) || s.Epoch < v.shared.Floor():
			k.State = keyring.Expired
		case server == nil:
			k.State = keyring.Kept
		case server.Signing == id:
			k.State, k.Until = keyring.InUse, time.Time{}
		case now.Before(s.SignsUntil) && s.Epoch > server.Epoch || server.Signing == "":
			k.State, k.Until = keyring.Pending, time.Time{}
		default:
			k.State = keyring.Kept
		}
		list = append(list, k)
	}
	for id, r := range v.revoked {
		if v.signers[id] == nil {
			list = append(list, Key{Info: keyring.Info{Purpose: keyring.Credential, ID: id, Until: r.Revoked, State: keyring.Expired}, Server: r.Server, Revoked: true})
		}
	}
	slices.SortFunc(list, func(a, b Key) int {
		return cmp.Or(strings.Compare(a.Server, b.Server), a.Active.Compare(b.Active), strings.Compare(a.ID, b.ID))
	})
	for _, info := range v.shared.Describe(now) {
		list = append(list, Key{Info: info})
	}
	return list, nil
}

// Verifier returns the keys that check credentials now.
func (o *Operator) Verifier(ctx context.Context) (*keyring.Verifier, error) {
	v, err := o.read(ctx)
	if err != nil {
		return nil, err
	}
	now := o.Now()
	return v.shared.With(nil, now, v.known(now), now).Verifier(), nil
}

// change replaces the shared secrets with the ones that change returns.
func (o *Operator) change(ctx context.Context, change func(*keyring.Shared) *keyring.Shared) error {
	for {
		v, err := o.read(ctx)
		if err != nil {
			return err
		}
		next := change(v.shared)
		_, err = o.Store.Replace(ctx, v.sharedRecord, seal(o.Roots, next))
		switch {
		case errors.Is(err, registry.ErrConflict) && ctx.Err() == nil:
			continue // another writer was faster; read again
		case err != nil:
			return fmt.Errorf("writing what the servers share: %w", err)
		}
		o.wrote = next
		return nil
	}
}

// Rotation says what to replace.
type Rotation struct {
	Discard  bool // and refuse what the previous keys made
	Upstream bool // also the key behind upstream passwords
}

// Rotate asks every server for a new signing key, and adds a new session key for all of them.
// Settled reports their progress.
func (o *Operator) Rotate(ctx context.Context, r Rotation) error {
	now := o.Now()
	return o.change(ctx, func(s *keyring.Shared) *keyring.Shared {
		if r.Discard {
			s = s.Discard(now)
		} else {
			s = s.Rotate(now)
		}
		if r.Upstream {
			s = s.RotateUpstream(now)
		}
		return s
	})
}

// Settled names the servers that still sign with a key from before the last Rotate, or have not
// seen the latest session key. An empty list means that the rotation is complete, and ErrLost
// that it never will be.
func (o *Operator) Settled(ctx context.Context) (late []string, servers int, err error) {
	v, err := o.read(ctx)
	if err != nil {
		return nil, 0, err
	}
	lost := o.wrote != nil && !v.shared.Keeps(o.wrote)
	if lost && v.shared.After(o.wrote) {
		return nil, 0, ErrLost
	}
	for _, id := range slices.Sorted(maps.Keys(v.servers)) {
		s := v.servers[id]
		if lost || s.Epoch < v.shared.Epoch() || s.Seen < v.sharedRecord.Revision || v.revoked[s.Signing] != nil {
			late = append(late, id)
		}
	}
	if len(late) == 0 && v.shared.Pending() && len(v.servers) > 0 {
		late = slices.Sorted(maps.Keys(v.servers))
	}
	return late, len(v.servers), nil
}

// mostAttempts bounds the attempts at a write while other writers keep getting there first.
const mostAttempts = 20

// Revoke revokes keys at once, and with them everything that they signed: one key by its
// identifier, or all keys of a server by its name. It returns the identifiers, including those
// of keys that were revoked before.
func (o *Operator) Revoke(ctx context.Context, name string) (ids []string, err error) {
	for range mostAttempts {
		v, err := o.read(ctx)
		if err != nil {
			return nil, err
		}
		ids, err = o.revoke(ctx, v, name)
		switch {
		case errors.Is(err, registry.ErrConflict):
			continue // the record has changed since it was read
		case err != nil:
			return nil, fmt.Errorf("writing what the servers share: %w", err)
		case len(ids) == 0:
			return nil, fmt.Errorf("there is no key and no server %q: `daypass keys list` has both", name)
		}
		return ids, nil
	}
	return nil, fmt.Errorf("the key is not revoked: its record keeps changing: find out what else writes under %s in etcd", revokedPrefix)
}

func (o *Operator) revoke(ctx context.Context, v *view, name string) (ids []string, err error) {
	now := o.Now()
	for _, id := range slices.Sorted(maps.Keys(v.revoked)) {
		if id == name || v.revoked[id].Server == name {
			ids = append(ids, id)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(v.signers)) {
		s := v.signers[id]
		if v.revoked[id] != nil || id != name && s.Server != name {
			continue
		}
		key := revokedPrefix + id
		// A server that has not read the revocation may certify the key once more. Also, the
		// certificate read here may be an old one that someone has put back.
		until := s.until()
		if latest := now.Add(window + keyring.CredentialLifetime + keyring.Margin); latest.After(until) {
			until = latest
		}
		statement := revokedStatement{Version: recordVersion, Server: s.Server, Revoked: now.UTC(), Until: until.Add(window).UTC()}
		if err := v.put(key, certify(o.Roots, key, statement))(ctx, o.Store); err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids, nil
}

// Move imports the keys of a keyring file. It refuses if the servers share keys already.
func (o *Operator) Move(ctx context.Context, k *keyring.Keyring) error {
	_, err := o.Store.Create(ctx, sharedKey, seal(o.Roots, keyring.SharedOf(k)))
	if errors.Is(err, registry.ErrConflict) {
		if _, err := o.read(ctx); err != nil {
			return err
		}
		return errors.New("the servers share keys in etcd already: the keys of the keyring file were not imported")
	}
	if err != nil {
		return fmt.Errorf("writing what the servers share: %w", err)
	}
	return nil
}
