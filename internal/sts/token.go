package sts

import (
	"bytes"
	"compress/flate"
	"crypto/rand"
	"encoding/base32"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/daypass/daypass/internal/iam"
	"github.com/daypass/daypass/internal/keyring"
)

// maxPacked is the limit of PackedPolicySize, in bytes: with it a token stays
// below 6 KiB, and within the header limits of common proxies.
const maxPacked = 4096

// Credentials are the Credentials element of the answers.
type Credentials struct {
	AccessKeyID string
	Secret      keyring.Secret
	Token       keyring.Secret
	Expiration  time.Time
	// PackedPolicySize is the percentage of the space for session policies and tags
	// that is used, 0 if there are none.
	PackedPolicySize int
}

// sealed is the plaintext of a token. A number is never used again for another field.
type sealed struct {
	Secret         []byte     `cbor:"1,keyasint"`
	Kind           Kind       `cbor:"2,keyasint"`
	Account        string     `cbor:"3,keyasint"`
	Name           string     `cbor:"4,keyasint"`
	PrincipalID    string     `cbor:"5,keyasint"`
	SessionName    string     `cbor:"6,keyasint,omitempty"`
	SourceIdentity string     `cbor:"7,keyasint,omitempty"`
	Federated      *Federated `cbor:"8,keyasint,omitempty"`
	MFA            int64      `cbor:"9,keyasint,omitempty"`
	IssuedAt       int64      `cbor:"10,keyasint"`
	NotAfter       int64      `cbor:"11,keyasint"`
	Packed         []byte     `cbor:"12,keyasint,omitempty"`
	Origin         *Origin    `cbor:"13,keyasint,omitempty"`
	SignedIn       int64      `cbor:"14,keyasint,omitempty"`
}

type packed struct {
	Policy     string   `cbor:"1,keyasint,omitempty"`
	PolicyARNs []string `cbor:"2,keyasint,omitempty"`
	Tags       []Tag    `cbor:"3,keyasint,omitempty"`
	Transitive []string `cbor:"4,keyasint,omitempty"`
}

// Issue makes the temporary access key of a session that begins now and lasts for
// lifetime, at most keyring.SessionLifetime. It fills AccessKeyID, Secret, IssuedAt
// and NotAfter of s. The error is ErrPackedTooLarge with the per cent in its text.
func Issue(k *keyring.Keyring, now time.Time, lifetime time.Duration, s *Session) (Credentials, error) {
	if lifetime > keyring.SessionLifetime {
		panic("internal error: session outlives the key that seals it")
	}
	out := sealed{
		Secret:         make([]byte, 30),
		Kind:           s.Kind,
		Account:        s.Account,
		Name:           s.Name,
		PrincipalID:    s.PrincipalID,
		SessionName:    s.SessionName,
		SourceIdentity: s.SourceIdentity,
		Federated:      s.Federated,
		Origin:         s.Origin,
	}
	rand.Read(out.Secret) // never fails
	s.AccessKeyID = newAccessKeyID(s.Account)
	s.Secret = secretOf(out.Secret)
	s.IssuedAt = now.UTC().Truncate(time.Second)
	s.NotAfter = s.IssuedAt.Add(lifetime)
	out.IssuedAt, out.NotAfter = s.IssuedAt.Unix(), s.NotAfter.Unix()
	if !s.MFA.IsZero() {
		out.MFA = s.MFA.Unix()
	}
	if !s.SignedIn.IsZero() {
		out.SignedIn = s.SignedIn.Unix()
	}
	size := 0 // of policies and tags, in per cent of what is allowed
	if s.Restricted() || len(s.Tags) > 0 {
		out.Packed = pack(packed{s.Policy, s.PolicyARNs, s.Tags, s.Transitive})
		size = (100*len(out.Packed) + maxPacked - 1) / maxPacked
		if size > 100 {
			return Credentials{}, fmt.Errorf("%w: %d%% of the allowed size", ErrPackedTooLarge, size)
		}
	}
	plaintext, err := cbor.Marshal(out)
	if err != nil {
		return Credentials{}, fmt.Errorf("encoding session: %w", err)
	}
	box := k.Seal(now, plaintext, boundTo(s.AccessKeyID))
	return Credentials{
		AccessKeyID:      s.AccessKeyID,
		Secret:           s.Secret,
		Token:            keyring.Secret(base64.StdEncoding.EncodeToString(box)),
		Expiration:       s.NotAfter,
		PackedPolicySize: size,
	}, nil
}

// boundTo returns the additional data of a token. Nothing else that the keyring seals
// has additional data with this prefix.
func boundTo(accessKeyID string) []byte { return []byte("access key " + accessKeyID) }

// secretOf returns the secret access key for 30 random bytes: 40 characters, as at AWS.
func secretOf(random []byte) keyring.Secret {
	return keyring.Secret(base64.StdEncoding.EncodeToString(random))
}

// open is the inverse of Issue. It does not look at NotAfter.
func open(k *keyring.Keyring, now time.Time, accessKeyID, token string) (*Session, error) {
	// The decoder skips line breaks, so that one token would have many forms.
	box, err := base64.StdEncoding.Strict().DecodeString(token)
	if err != nil || strings.ContainsAny(token, "\r\n") {
		return nil, ErrInvalidToken
	}
	plaintext, err := k.Open(now, box, boundTo(accessKeyID))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalidToken, err)
	}
	// The keyring sealed this token, so anything that cannot be read from here on is from
	// another version.
	var in sealed
	if err := decoding.Unmarshal(plaintext, &in); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalidToken, err)
	}
	s := &Session{
		AccessKeyID:    accessKeyID,
		Secret:         secretOf(in.Secret),
		Kind:           in.Kind,
		Account:        in.Account,
		Name:           in.Name,
		PrincipalID:    in.PrincipalID,
		SessionName:    in.SessionName,
		SourceIdentity: in.SourceIdentity,
		Federated:      in.Federated,
		Origin:         in.Origin,
		IssuedAt:       time.Unix(in.IssuedAt, 0).UTC(),
		NotAfter:       time.Unix(in.NotAfter, 0).UTC(),
	}
	if in.MFA != 0 {
		s.MFA = time.Unix(in.MFA, 0).UTC()
	}
	if in.SignedIn != 0 {
		s.SignedIn = time.Unix(in.SignedIn, 0).UTC()
	}
	if len(in.Packed) > 0 {
		more, err := unpack(in.Packed)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrInvalidToken, err)
		}
		s.Policy, s.PolicyARNs, s.Tags, s.Transitive = more.Policy, more.PolicyARNs, more.Tags, more.Transitive
	}
	if s.Policy != "" {
		s.inline, err = iam.ParsePolicy(iam.IdentityPolicy, SessionPolicyName, []byte(s.Policy))
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrInvalidToken, err)
		}
	}
	return s, nil
}

// SessionPolicyName is the name of an inline session policy in decisions.
const SessionPolicyName = "session policy"

// decoding refuses what this version would not have written.
var decoding = func() cbor.DecMode {
	mode, err := cbor.DecOptions{DupMapKey: cbor.DupMapKeyEnforcedAPF, ExtraReturnErrors: cbor.ExtraDecErrorUnknownField}.DecMode()
	if err != nil {
		panic("internal error: " + err.Error())
	}
	return mode
}()

func pack(p packed) []byte {
	plain, err := cbor.Marshal(p)
	if err != nil {
		panic("internal error: encoding session policies: " + err.Error())
	}
	var buf bytes.Buffer
	w, _ := flate.NewWriter(&buf, flate.BestCompression)
	w.Write(plain) // to memory: never fails
	w.Close()
	return buf.Bytes()
}

func unpack(data []byte) (p packed, err error) {
	// The most that Issue can have packed: a policy, ten ARNs, fifty tags and their keys.
	const most = 256 << 10
	plain, err := io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(data)), most))
	if err != nil {
		return packed{}, err
	}
	err = decoding.Unmarshal(plain, &p)
	return p, err
}

// newAccessKeyID makes "ASIA" and sixteen characters of base32, which are 80 bits. As at AWS, these
// begin with the account, so that GetAccessKeyInfo needs no store; the random bits only distinguish
// keys.
func newAccessKeyID(account string) string {
	n, err := strconv.ParseUint(account, 10, 40)
	if err != nil {
		panic("internal error: account is not twelve digits")
	}
	var b [10]byte
	rand.Read(b[2:]) // never fails
	// 1 bit of 0, 40 bits of account, 7 random bits; then 4 random bytes.
	binary.BigEndian.PutUint64(b[:8], n<<23|binary.BigEndian.Uint64(b[2:])&(1<<23-1))
	return "ASIA" + base32.StdEncoding.EncodeToString(b[:])
}

// AccountOf returns the account in an access key id, in AWS's form, which is also ours.
// The key need not exist.
func AccountOf(accessKeyID string) (string, bool) {
	if len(accessKeyID) != 20 {
		return "", false
	}
	b, err := base32.StdEncoding.DecodeString(accessKeyID[4:])
	if err != nil {
		return "", false
	}
	n := binary.BigEndian.Uint64(b[:8]) >> 23 & (1<<40 - 1)
	return fmt.Sprintf("%012d", n), n < 1e12
}
