package keyring

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// formatVersion is the version of the file that Marshal writes and Parse reads.
const formatVersion = 1

// maxSize bounds what Parse reads: some thousand keys.
const maxSize = 1 << 20

// stored is the content of the keyring file. An example, with the secrets left out:
//
//	{
//	  "version": 1,
//	  "credential": [
//	    {"id": "6f1c0b5d1e0a9c44", "active": "2026-01-01T00:00:00Z", "secret": "…"}
//	  ],
//	  "session": [
//	    {"id": "b0e4a51f77c8d213", "active": "2026-01-01T00:00:00Z", "secret": "…"}
//	  ],
//	  "upstream": {"id": "0d9a3c2b45f6e781", "active": "2026-01-01T00:00:00Z", "secret": "…"}
//	}
//
// A secret is 32 bytes in base64url without padding: an Ed25519 seed (RFC 8032),
// an AES-256 key, an HKDF key. Keys are in the order in which they become active.
type stored struct {
	Version    int         `json:"version"`
	Credential []storedKey `json:"credential"`
	Session    []storedKey `json:"session"`
	Upstream   storedKey   `json:"upstream"`
}

type storedKey struct {
	ID     string `json:"id"`
	Active string `json:"active"`
	Secret string `json:"secret"`
}

// Marshal returns the keyring as a JSON document for Parse. It contains the secrets.
func (k *Keyring) Marshal() []byte {
	file := stored{Version: formatVersion, Credential: storeAll(k.credential), Session: storeAll(k.session), Upstream: store(k.upstream)}
	data, err := json.MarshalIndent(file, "", "  ")
	if err != nil {
		panic("internal error: keyring: " + err.Error())
	}
	return append(data, '\n')
}

func store(one *key) storedKey {
	return storedKey{
		ID:     one.hexID(),
		Active: one.active.Format(time.RFC3339),
		Secret: base64.RawURLEncoding.EncodeToString(one.secret[:]),
	}
}

func storeAll(keys []*key) []storedKey {
	var list []storedKey
	for _, one := range keys {
		list = append(list, store(one))
	}
	return list
}

// Parse reads a document of Marshal, and nothing else: apart from white space, the document must
// be exactly what Marshal would write, so it has no unknown, repeated or misspelled names, and
// every key matches its identifier. Errors never quote the document.
func Parse(data []byte) (*Keyring, error) {
	if len(data) > maxSize {
		return nil, fmt.Errorf("longer than %d bytes", maxSize)
	}
	var version struct {
		Version int `json:"version"`
	}
	var file stored
	if err := json.Unmarshal(data, &version); err != nil {
		return nil, jsonError(data, err)
	}
	if version.Version != formatVersion {
		return nil, fmt.Errorf("version %d of the file; this daypass reads version %d", version.Version, formatVersion)
	}
	if err := json.Unmarshal(data, &file); err != nil {
		return nil, jsonError(data, err)
	}
	credential, err := parseKeys(Credential, file.Credential)
	if err != nil {
		return nil, err
	}
	session, err := parseKeys(Session, file.Session)
	if err != nil {
		return nil, err
	}
	upstream, err := parseKeys(Upstream, []storedKey{file.Upstream})
	if err != nil {
		return nil, err
	}
	k := assemble(credential, session, upstream[0])
	var got, want bytes.Buffer
	if json.Compact(&got, data) != nil || json.Compact(&want, k.Marshal()) != nil || !bytes.Equal(got.Bytes(), want.Bytes()) {
		return nil, errors.New("has unknown or repeated names, or names or values spelled otherwise than daypass writes them")
	}
	return k, nil
}

// jsonError keeps the position of an error and drops the text around it, which may be a secret.
func jsonError(data []byte, err error) error {
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		if syntax.Offset >= int64(len(data)) {
			return fmt.Errorf("ends in the middle, after %d bytes", len(data))
		}
		return fmt.Errorf("is not JSON at byte %d", syntax.Offset)
	}
	if mismatch, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return fmt.Errorf("has a value of the wrong type in %q at byte %d", mismatch.Field, mismatch.Offset)
	}
	return errors.New("is not a keyring")
}

func parseKeys(purpose Purpose, list []storedKey) ([]*key, error) {
	if len(list) == 0 {
		return nil, fmt.Errorf("has no %s key", purpose)
	}
	seen := make(map[keyID]bool, len(list))
	keys := make([]*key, 0, len(list))
	for i, one := range list {
		active, err := time.Parse(time.RFC3339, one.Active)
		if err != nil {
			return nil, fmt.Errorf("%s key %d: active is not a time", purpose, i)
		}
		secret, err := base64.RawURLEncoding.Strict().DecodeString(one.Secret)
		if err != nil || len(secret) != secretSize {
			return nil, fmt.Errorf("%s key %d: secret is not %d bytes in base64url", purpose, i, secretSize)
		}
		k := newKey(purpose, active, [secretSize]byte(secret))
		switch {
		case hex.EncodeToString(k.id[:]) != one.ID:
			return nil, fmt.Errorf("%s key %d: secret does not belong to the identifier: one of them is damaged", purpose, i)
		case seen[k.id]:
			return nil, fmt.Errorf("%s key %d: the same key twice", purpose, i)
		case i > 0 && active.Before(keys[i-1].active):
			return nil, fmt.Errorf("%s key %d: active before the key ahead of it", purpose, i)
		}
		seen[k.id] = true
		keys = append(keys, k)
	}
	return keys, nil
}
