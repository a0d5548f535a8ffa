package fleet

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/daypass/daypass/internal/keyring"
	"github.com/daypass/daypass/internal/registry"
)

// Where the records are in the registry:
//
//	fleet/key/shared           the secrets that all servers share, sealed
//	fleet/key/signer/KEYID     one server's key, public
//	fleet/key/revoked/KEYID    the revocation of a key
//	fleet/server/SERVER        the announcement of a live server, under a lease
//
// Every record but the first is a statement that a root key signed for exactly that record:
//
//	{"version":1,"statement":"{\"version\":1,\"server\":\"db1-k3v9\",…}","signature":"…"}
//
// Servers of two releases run beside each other during an upgrade, so:
//
//   - names that are not known here are ignored, and may be lost when this release writes the record;
//   - a record or a statement of a later version is ignored, and not overwritten. So a release that
//     writes a new version, or relies on a new name, comes after one that reads it;
//   - a statement of a later version that a key is revoked is believed: its record says which key.
const (
	prefix        = "fleet/"
	keyPrefix     = prefix + "key/"
	sharedKey     = keyPrefix + "shared"
	signerPrefix  = keyPrefix + "signer/"
	revokedPrefix = keyPrefix + "revoked/"
	serverPrefix  = prefix + "server/"

	recordVersion = 1
	// maxRecord is the largest record that the registry stores.
	maxRecord = 64 << 10
)

type envelope struct {
	Version   int    `json:"version"`
	Statement string `json:"statement"`
	Signature []byte `json:"signature"`
}

// signerStatement certifies the public half of a server's key.
type signerStatement struct {
	Version int       `json:"version"`
	Server  string    `json:"server"`
	Public  []byte    `json:"public"` // Ed25519
	Epoch   uint64    `json:"epoch"`
	Created time.Time `json:"created"`
	// Certified is the time of this statement. The latest statement about a key counts.
	Certified time.Time `json:"certified"`
	// SignsUntil is when the key stops signing unless it is certified again.
	SignsUntil time.Time `json:"signs_until"`
}

// until returns the time from which nothing that the key signed can be valid.
func (s *signerStatement) until() time.Time {
	return s.SignsUntil.Add(keyring.CredentialLifetime + keyring.Margin)
}

// revokedStatement says that a key is revoked.
type revokedStatement struct {
	Version int       `json:"version"`
	Server  string    `json:"server"`
	Revoked time.Time `json:"revoked"`
	Until   time.Time `json:"until"` // when the key would have been forgotten
}

// serverStatement is a server's announcement.
type serverStatement struct {
	Version int `json:"version"`
	Self
	// Clock is the server's time when it wrote this.
	Clock time.Time `json:"clock"`
	// Running is how long the server had been running by then. Unlike Clock, it never goes back.
	Running time.Duration `json:"running,omitempty"`
	// Seen is the latest revision of a record of a key that the server has read.
	Seen uint64 `json:"seen"`
	// Signing is the key that the server signs with. It is empty if the server signs with keys
	// from a keyring file, or has no key.
	Signing string `json:"signing,omitempty"`
	Epoch   uint64 `json:"epoch,omitempty"`
	// Roots are the identifiers of the server's root keys. The first one signs.
	Roots []string `json:"roots"`
}

// after reports whether a statement of the same server is later than another one.
func (s *serverStatement) after(other *serverStatement) bool {
	switch {
	case !s.Started.Equal(other.Started):
		return s.Started.After(other.Started)
	case s.Running != other.Running:
		return s.Running > other.Running
	}
	return s.Clock.After(other.Clock)
}

// Self is what a server tells the others about itself.
type Self struct {
	ID         string    `json:"id"`
	Release    string    `json:"release"`
	Started    time.Time `json:"started"`
	Sessions   int       `json:"sessions"`
	Config     string    `json:"config"` // a hash of what has to be the same everywhere
	ConfigRead time.Time `json:"config_read"`
	// ConfigParts are hashes of the parts of the configuration, by name. They show in what servers
	// with different hashes differ.
	ConfigParts map[string]string `json:"config_parts,omitempty"`
	// Peers is the address at which other servers reach this one. Empty: none.
	Peers string `json:"peers,omitempty"`
	// Mark is part of every cancel key that the server gives out.
	Mark byte `json:"mark"`
	// Leaving reports that the server was asked to stop.
	Leaving bool `json:"leaving,omitempty"`
}

type sealedRecord struct {
	Version int    `json:"version"`
	Sealed  []byte `json:"sealed"`
}

// certify returns the signed value of a record.
func certify(roots *keyring.Roots, key string, statement any) []byte {
	text := marshal(statement)
	return marshal(envelope{recordVersion, string(text), roots.Sign("record", key, text)})
}

func marshal(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic("internal error: a record that JSON cannot hold: " + err.Error())
	}
	return data
}

// readStatement reads a record that certify made, for this key, into statement.
func readStatement(roots *keyring.Roots, record registry.Record, statement any) error {
	var e envelope
	if err := readJSON(record.Value, &e); err != nil {
		return err
	}
	if err := roots.Verify("record", record.Key, []byte(e.Statement), e.Signature); err != nil {
		return err
	}
	return readJSON([]byte(e.Statement), statement)
}

// readRevoked reads the revocation of a key. It believes a revocation of a later version too, and
// reads the fields that both versions have.
func readRevoked(roots *keyring.Roots, record registry.Record) (s revokedStatement, err error) {
	err = readStatement(roots, record, &s)
	if !errors.Is(err, errLater) {
		return s, err
	}
	var e envelope
	if readJSON(record.Value, &e) != nil {
		return s, err // how this is signed is not known
	}
	var names map[string]json.RawMessage
	_ = json.Unmarshal([]byte(e.Statement), &names)
	_ = json.Unmarshal(names["server"], &s.Server)
	_ = json.Unmarshal(names["revoked"], &s.Revoked)
	_ = json.Unmarshal(names["until"], &s.Until)
	_ = json.Unmarshal(names["version"], &s.Version)
	return s, nil
}

var errLater = errors.New("is not known here: a later release wrote it")

// readJSON reads a document whose version is known.
func readJSON(data []byte, v any) error {
	if len(data) > maxRecord {
		return fmt.Errorf("longer than %d bytes", maxRecord)
	}
	var version struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(data, &version); err != nil {
		return errors.New("not JSON")
	}
	if version.Version != recordVersion {
		return fmt.Errorf("version %d %w", version.Version, errLater)
	}
	if err := json.Unmarshal(data, v); err != nil {
		return errors.New("not what this program writes there")
	}
	return nil
}

func readSigner(roots *keyring.Roots, record registry.Record) (s signerStatement, err error) {
	if err := readStatement(roots, record, &s); err != nil {
		return s, err
	}
	if len(s.Public) != 32 || keyring.PublicID(s.Public) != strings.TrimPrefix(record.Key, signerPrefix) {
		return s, errors.New("it is not the key that its name says")
	}
	return s, nil
}

func readServer(roots *keyring.Roots, record registry.Record) (s serverStatement, err error) {
	if err := readStatement(roots, record, &s); err != nil {
		return s, err
	}
	if s.ID != strings.TrimPrefix(record.Key, serverPrefix) {
		return s, errors.New("it is not the server that its name says")
	}
	return s, nil
}

func seal(roots *keyring.Roots, shared *keyring.Shared) []byte {
	return marshal(sealedRecord{recordVersion, roots.Seal(sharedKey, shared.Marshal())})
}

// openShared opens the shared secrets. It also returns the root key that they are sealed under.
func openShared(roots *keyring.Roots, record registry.Record) (shared *keyring.Shared, under string, err error) {
	var s sealedRecord
	if err := readJSON(record.Value, &s); err != nil {
		return nil, "", err
	}
	plain, under, err := roots.Open(sharedKey, s.Sealed)
	if err != nil {
		return nil, "", err
	}
	shared, err = keyring.ParseShared(plain)
	return shared, under, err
}
