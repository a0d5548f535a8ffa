package registry

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/daypass/daypass/internal/keyring"
)

// Keep is how long a revocation is remembered: the lifetime of a credential, and a margin for
// clocks that disagree.
const Keep = keyring.CredentialLifetime + 5*time.Minute

// keepSignIns is how long a revocation of a principal or of everything is remembered. These also
// revoke sign-ins, whose keys can be refreshed until the sign-in ends.
const keepSignIns = keyring.SignInLifetime + 5*time.Minute

// Revocation revokes the credentials of one selector that were issued before a time.
// Exactly one of CredentialID, Principal, DBUser, Cluster (by itself) and All is set.
type Revocation struct {
	CredentialID string
	// Principal is the ARN of the principal that requested the credentials. The ARN of an IAM
	// role, or of its assumed role without a session name, means all sessions of the role.
	Principal string
	// DBUser is the database user as credentials name it. Cluster may narrow it.
	DBUser  string
	Cluster string
	All     bool

	// IssuedBefore limits the revocation to credentials issued earlier. Zero means the time
	// of the revocation or, for a CredentialID, no limit. Credentials have whole seconds
	// only, so one issued in the same second as IssuedBefore is revoked.
	IssuedBefore time.Time

	RevokedAt time.Time // set by Revoke
	RevokedBy string    // ARN of the principal that revoked

	// later reports that a later release wrote the revocation. It may be narrower than it is
	// taken for, and is in force until that release deletes it.
	later bool
}

// Expires returns when the revocation may be forgotten, because all credentials it affects have
// expired.
func (r *Revocation) Expires() time.Time { return r.RevokedAt.Add(r.keep()) }

func (r *Revocation) keep() time.Duration {
	if r.Principal != "" || r.All {
		return keepSignIns
	}
	return Keep
}

// Credential has the properties of a credential that revocations refer to.
type Credential struct {
	ID, Principal, Cluster, DBUser string
	IssuedAt                       time.Time
}

// ErrInvalid is wrapped by Revoke's error for a revocation with no selector, with several, or
// with invalid values.
var ErrInvalid = errors.New("registry: invalid revocation")

const (
	// maxName bounds a name in a revocation.
	maxName = 256
	// maxPrincipal bounds an ARN, as AWS does.
	maxPrincipal = 2048
)

// check checks any revocation, including one that an earlier version recorded.
func (r *Revocation) check(now time.Time) error {
	selectors := 0
	for _, given := range []bool{r.CredentialID != "", r.Principal != "", r.DBUser != "", r.DBUser == "" && r.Cluster != "", r.All} {
		if given {
			selectors++
		}
	}
	if selectors != 1 {
		return fmt.Errorf("%w: exactly one of credential, principal, database user, cluster and all is needed", ErrInvalid)
	}
	for i, text := range []string{r.CredentialID, r.DBUser, r.Cluster, r.Principal} {
		most := maxName
		if i == 3 {
			most = maxPrincipal
		}
		if len(text) > most || !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl) {
			return fmt.Errorf("%w: a name is too long, or not plain text", ErrInvalid)
		}
	}
	if r.IssuedBefore.After(now) {
		return fmt.Errorf("%w: what is issued in the future is for policies to refuse", ErrInvalid)
	}
	return nil
}

// checkNames checks that the names in a new revocation can occur in a credential.
func (r *Revocation) checkNames() error {
	switch {
	case r.CredentialID != "" && !credentialIDs.MatchString(r.CredentialID):
		return fmt.Errorf("%w: that is not the identifier of a credential", ErrInvalid)
	case r.Principal != "" && !principals.MatchString(r.Principal):
		return fmt.Errorf("%w: that is not the ARN of a principal", ErrInvalid)
	case r.DBUser != "" && !IsDBUser(r.DBUser):
		return fmt.Errorf("%w: that is not the name of a database user", ErrInvalid)
	case r.Cluster != "" && !clusters.MatchString(r.Cluster):
		return fmt.Errorf("%w: that is not the identifier of a cluster", ErrInvalid)
	}
	return nil
}

// IsDBUser reports whether a credential can be for a database user with this name.
func IsDBUser(name string) bool { return dbUsers.MatchString(name) }

// The forms of names in credentials. They do not change.
var (
	credentialIDs = regexp.MustCompile(`^[0-9A-Za-z_-]{1,64}$`)
	principals    = regexp.MustCompile(`^arn:[a-z0-9-]{1,32}:(iam|sts)::[0-9]{12}:(user|role|assumed-role|federated-user)/[!-~]+$|^arn:[a-z0-9-]{1,32}:iam::[0-9]{12}:root$`)
	// A name that GetClusterCredentials accepts, or one derived from an IAM identity.
	dbUsers  = regexp.MustCompile(`^([A-Za-z][A-Za-z0-9_+.@-]{0,63}|IAMR?:[A-Za-z0-9_+=,.@-]{1,64})$`)
	clusters = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)
)

// narrow reports whether the revocation is for less than a whole cluster. The number of such
// revocations is not bounded by the number of clusters.
func (r *Revocation) narrow() bool { return !r.All && (r.Cluster == "" || r.DBUser != "") }

// revoker returns the IAM user or IAM role that counts as the author of a revocation. All
// sessions of a role count as one.
func revoker(arn string) string {
	if role := roleOf(arn); role != "" {
		return role
	}
	return arn
}

// everyIssue reports whether the revocation has no limit in time.
func (r *Revocation) everyIssue() bool {
	return (r.CredentialID != "" || r.later) && r.IssuedBefore.IsZero()
}

// covers reports whether r revokes everything that other does, if both have the same
// selector.
func (r *Revocation) covers(other *Revocation) bool {
	return r.everyIssue() || !other.everyIssue() && !r.IssuedBefore.Before(other.IssuedBefore)
}

const revocationPrefix = "revocation/"

// key returns the record's key, one for each selector. If a principal's ARN is too long for a
// key, its hash replaces it. A hash cannot be mistaken for an ARN.
func (r *Revocation) key() string {
	switch {
	case r.CredentialID != "":
		return revocationPrefix + "credential/" + escape(r.CredentialID)
	case len(r.Principal) > maxName:
		sum := sha256.Sum256([]byte(r.Principal))
		return revocationPrefix + "principal/sha256-" + hex.EncodeToString(sum[:])
	case r.Principal != "":
		return revocationPrefix + "principal/" + escape(r.Principal)
	case r.DBUser != "":
		return revocationPrefix + "dbuser/" + escape(r.Cluster) + "/" + escape(r.DBUser)
	case r.Cluster != "":
		return revocationPrefix + "cluster/" + escape(r.Cluster)
	}
	return revocationPrefix + "all"
}

// escape keeps a name from being read as more than one part of a key.
func escape(name string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := 0; i < len(name); i++ {
		if c := name[i]; c <= ' ' || c >= 0x7f || c == '/' || c == '%' {
			b.WriteByte('%')
			b.WriteByte(hex[c>>4])
			b.WriteByte(hex[c&15])
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// normal returns a principal in the form that credentials have. For an IAM role this is the
// assumed role, whose ARN has neither path nor session name.
//
//	arn:aws:iam::123456789012:role/jobs/etl → arn:aws:sts::123456789012:assumed-role/etl
func normal(principal string) string {
	parts := strings.SplitN(principal, ":", 6)
	if len(parts) != 6 || parts[2] != "iam" || !strings.HasPrefix(parts[5], "role/") {
		return principal
	}
	parts[2] = "sts"
	parts[5] = "assumed-role" + parts[5][strings.LastIndexByte(parts[5], '/'):]
	return strings.Join(parts, ":")
}

// roleOf returns the assumed role of a role session, or "" for other principals.
func roleOf(principal string) string {
	const kind = ":assumed-role/"
	at := strings.Index(principal, kind)
	if at < 0 || !strings.HasPrefix(principal, "arn:") || !strings.Contains(principal[:at], ":sts:") {
		return ""
	}
	name, _, found := strings.Cut(principal[at+len(kind):], "/")
	if !found {
		return ""
	}
	return principal[:at+len(kind)+len(name)]
}

// stored is the form of a revocation in a record:
//
//	{"version":1,"principal":"arn:aws:iam::123456789012:user/ana",
//	 "issued_before":"2026-01-02T03:04:05Z","revoked_at":"2026-01-02T03:04:05Z",
//	 "revoked_by":"arn:aws:iam::123456789012:user/admin"}
type stored struct {
	Version      int       `json:"version"`
	CredentialID string    `json:"credential_id,omitempty"`
	Principal    string    `json:"principal,omitempty"`
	DBUser       string    `json:"db_user,omitempty"`
	Cluster      string    `json:"cluster,omitempty"`
	All          bool      `json:"all,omitempty"`
	IssuedBefore time.Time `json:"issued_before,omitzero"`
	RevokedAt    time.Time `json:"revoked_at"`
	RevokedBy    string    `json:"revoked_by,omitempty"`
}

func (r *Revocation) encode() []byte {
	data, err := json.Marshal(stored{1, r.CredentialID, r.Principal, r.DBUser, r.Cluster, r.All, r.IssuedBefore, r.RevokedAt, r.RevokedBy})
	if err != nil {
		panic("internal error: a revocation that JSON cannot hold: " + err.Error())
	}
	return data
}

// decode parses a record. An unknown form is an error: it might revoke a credential.
//
// Servers of two releases share the records during an upgrade. So unknown fields are ignored. A
// later release may add fields to version 1 only if they never make a record revoke more. Records of
// a later version are read by decodeLater.
func decode(record Record) (Revocation, error) {
	var s stored
	var version struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(record.Value, &version); err != nil {
		return Revocation{}, fmt.Errorf("reading registry record %s: %w", record.Key, err)
	}
	if version.Version > 1 {
		return decodeLater(record), nil
	}
	if err := json.Unmarshal(record.Value, &s); err != nil {
		return Revocation{}, fmt.Errorf("reading registry record %s: %w", record.Key, err)
	}
	r := Revocation{CredentialID: s.CredentialID, Principal: s.Principal, DBUser: s.DBUser, Cluster: s.Cluster, All: s.All,
		IssuedBefore: s.IssuedBefore, RevokedAt: s.RevokedAt, RevokedBy: s.RevokedBy}
	if s.Version != 1 || r.check(r.IssuedBefore) != nil || r.key() != record.Key || r.IssuedBefore.IsZero() && !r.everyIssue() {
		return Revocation{}, fmt.Errorf("reading registry record %s: it does not say what its key says", record.Key)
	}
	return r, nil
}

// decodeLater returns what a record of a later version revokes at most: everything that the record's
// key selects and that was issued before its time or, if it has none, at any time. A key of an unknown
// form selects everything.
func decodeLater(record Record) Revocation {
	r := selected(record)
	r.later = true
	var names map[string]json.RawMessage
	_ = json.Unmarshal(record.Value, &names) // it was read before, for its version
	_ = json.Unmarshal(names["issued_before"], &r.IssuedBefore)
	_ = json.Unmarshal(names["revoked_at"], &r.RevokedAt)
	_ = json.Unmarshal(names["revoked_by"], &r.RevokedBy)
	return r
}

// selected returns the revocation that has a record's key, or one of everything.
func selected(record Record) (r Revocation) {
	parts := strings.Split(strings.TrimPrefix(record.Key, revocationPrefix), "/")
	for i, part := range parts {
		if name, err := url.PathUnescape(part); err == nil {
			parts[i] = name
		}
	}
	switch {
	case parts[0] == "credential" && len(parts) == 2:
		r.CredentialID = parts[1]
	case parts[0] == "principal" && len(parts) == 2:
		r.Principal = parts[1]
		var s struct {
			Principal string `json:"principal"`
		}
		if json.Unmarshal(record.Value, &s) == nil && len(s.Principal) > maxName { // its key has a hash
			r.Principal = s.Principal
		}
	case parts[0] == "dbuser" && len(parts) == 3:
		r.Cluster, r.DBUser = parts[1], parts[2]
	case parts[0] == "cluster" && len(parts) == 2:
		r.Cluster = parts[1]
	default:
		r.All = true
	}
	if r.key() != record.Key || strings.HasPrefix(r.Principal, "sha256-") {
		return Revocation{All: true}
	}
	return r
}
