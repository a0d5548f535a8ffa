package dbuser

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/daypass/daypass/internal/adminconn"
)

// maxName is NAMEDATALEN - 1. PostgreSQL counts bytes and silently truncates longer names, so
// two names could become one. The package measures every name first.
const maxName = 63

// sessionNames are the names that the session role for one Need may have. If two Needs shared a
// name, one user would get the rights of another, so each (kind, user, groups) has a preferred
// name of its own:
//
//	database user   IAM:alice                     IAM:alice:analysts:finance
//	identity        IAMA:IAM:ana                  IAMA:IAMR:etl:analysts
//
// Database users and groups contain no colon, identities exactly one. A name that
// is longer than PostgreSQL allows, or that breaks these rules, is tagged (see
// taggedName). So the name alone identifies the user, and memberships do not matter.
type sessionNames struct {
	preferred string
	fallback  string // tagged, for when the preferred name is not ours
	keyed     string // for when the fallback is not ours either; it cannot be guessed
}

func (s sessionNames) all() []string { return []string{s.preferred, s.fallback, s.keyed} }

// names returns the names that the session role for n may have.
func (c *Config) names(n Need) sessionNames {
	s := sessionRoleNames(n.User, n.Groups, n.Identity)
	s.keyed = taggedName(tagKeyed, s.preferred, n.User, string(derive(c.Key, "name", c.Cluster, s.fallback)))
	return s
}

// sessionRoleNames returns the two names that need no key.
func sessionRoleNames(user string, groups []string, identity bool) sessionNames {
	prefix, colons := "IAM:", 0
	if identity {
		prefix, colons = "IAMA:", 1
	}
	plain := prefix + user
	regular := strings.Count(user, ":") == colons && !strings.Contains(user, "~")
	for _, g := range groups {
		plain += ":" + g
		regular = regular && !strings.ContainsAny(g, ":~")
	}
	n := sessionNames{preferred: plain, fallback: taggedName(tagHashed, plain, user, append([]string{prefix, user}, groups...)...)}
	if _, readable := ParseRoleName(plain); !regular || !readable {
		n.preferred = n.fallback
	}
	return n
}

// retiredName returns the new name of a session role of user that the administrative login
// cannot correct, so that another role can take the old name.
func retiredName(name, user string, oid uint32) string {
	return tagged(tagRetired, name, userHash(user), "retired", name, fmt.Sprint(oid))
}

// IsRetired reports whether a session role named was, with that OID, would be renamed to now when
// it is retired.
func IsRetired(now, was string, oid uint32) bool {
	n, ok := ParseRoleName(was)
	return ok && now == tagged(tagRetired, was, n.userHash, "retired", was, fmt.Sprint(oid))
}

// The tags of names that are not readable.
const (
	tagHashed  = 'h'
	tagKeyed   = 'k'
	tagRetired = 'r'
)

const (
	userHashSize = 20 // hexadecimal digits
	hashSize     = 26 // characters of base32
	tagSize      = 2 + userHashSize + hashSize
)

// taggedName returns a readable prefix, "~", a tag, 80 bits of a hash over the user,
// and 130 bits of a hash over parts. The first hash identifies the user among the roles
// that exist; it is hexadecimal so that PostgreSQL can compute it.
func taggedName(tag byte, plain, user string, parts ...string) string {
	return tagged(tag, plain, userHash(user), parts...)
}

func tagged(tag byte, plain, userHash string, parts ...string) string {
	return cutRunes(plain, maxName-tagSize) + "~" + string(tag) + userHash + hashOf(parts...)[:hashSize]
}

func userHash(user string) string {
	sum := sha256.Sum256([]byte(user))
	return hex.EncodeToString(sum[:])[:userHashSize]
}

// userHashed is the SQL expression for the userHash of a role's name. textsend returns a name in
// client_encoding, which is UTF8, and does not fail for one that is not valid UTF-8.
const userHashed = `left(encode(sha256(textsend(u.rolname::text)), 'hex'), 20)`

// hashOf returns a hash over parts. Their boundaries are part of the hash.
func hashOf(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		var size [4]byte
		binary.BigEndian.PutUint32(size[:], uint32(len(p)))
		h.Write(size[:])
		h.Write([]byte(p))
	}
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(h.Sum(nil)))
}

// RoleName is the name of a session role, taken apart.
type RoleName struct {
	user     string // empty: only its hash is known
	userHash string
	groups   []string // of a readable name
	identity bool
	tag      byte // 0: readable
}

// IsIdentity reports whether the name could also be that of an identity's database user: IAM:ana
// is the database user of the IAM user ana, and the session role of the user ana.
func (n RoleName) IsIdentity() bool { return n.tag == 0 && !n.identity && len(n.groups) == 0 }

// ParseRoleName takes the name of a session role apart. ok is false for names
// that this package does not give.
func ParseRoleName(name string) (n RoleName, ok bool) {
	rest, isUser := strings.CutPrefix(name, "IAM:")
	if !isUser {
		if rest, n.identity = strings.CutPrefix(name, "IAMA:"); !n.identity {
			return n, false
		}
	}
	if strings.Contains(name, "~") {
		at := len(name) - tagSize
		if at < 0 || name[at] != '~' || len(name) > maxName {
			return n, false
		}
		n.tag, n.userHash = name[at+1], name[at+2:at+2+userHashSize]
		const hexadecimal, base32 = "0123456789abcdef", "abcdefghijklmnopqrstuvwxyz234567"
		known := n.tag == tagHashed || n.tag == tagKeyed || n.tag == tagRetired
		return n, known && strings.Trim(n.userHash, hexadecimal) == "" && strings.Trim(name[at+2+userHashSize:], base32) == ""
	}
	parts := strings.Split(rest, ":")
	n.user = parts[0]
	if n.identity {
		if len(parts) < 2 || parts[0] != "IAM" && parts[0] != "IAMR" || parts[1] == "" {
			return n, false
		}
		n.user, parts = parts[0]+":"+parts[1], parts[1:]
	}
	n.groups, n.userHash = parts[1:], userHash(n.user)
	return n, n.user != "" && !slices.Contains(n.groups, "") && len(name) <= maxName
}

// IsOf reports whether the name is that of a session role of user.
func (n RoleName) IsOf(user string) bool {
	return n.userHash == userHash(user)
}

// User returns the database user of a readable name, or "" if only IsOf can tell.
func (n RoleName) User() string { return n.user }

// Keyed reports whether the name is one that cannot be guessed. A session role gets such a name
// if other roles have taken its usual names.
func (n RoleName) Keyed() bool { return n.tag == tagKeyed }

// cutRunes shortens s to at most n bytes without splitting a character.
func cutRunes(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// normalize sorts and deduplicates the groups. Before anything is sent to the server, it refuses
// strings that cannot be the name of a role or a database.
func (n Need) normalize() (Need, error) {
	if err := CheckName("user", n.User); err != nil {
		return n, err
	}
	n.Groups = slices.Compact(slices.Sorted(slices.Values(n.Groups)))
	for _, g := range n.Groups {
		if err := CheckName("group", g); err != nil {
			return n, err
		}
	}
	if n.Database != "" {
		if err := CheckName("database", n.Database); err != nil {
			return n, err
		}
	}
	if n.Identity {
		if !strings.HasPrefix(n.User, "IAM:") && !strings.HasPrefix(n.User, "IAMR:") {
			return n, &adminconn.Error{Kind: ErrNameInvalid, Name: n.User, Message: fmt.Sprintf("identity user %q does not begin with IAM: or IAMR:", n.User)}
		}
		n.AutoCreate = true
	}
	return n, nil
}

// CheckName returns an error if name cannot be the name of a role or a database. what is the
// error's word for the object, such as "user".
func CheckName(what, name string) error {
	switch {
	case len(name) > maxName:
		return &adminconn.Error{Kind: ErrNameTooLong, Name: name,
			Message: fmt.Sprintf("%s name %q has %d bytes; PostgreSQL keeps %d", what, name, len(name), maxName)}
	case name == "" || strings.IndexByte(name, 0) >= 0 || !utf8.ValidString(name):
		return &adminconn.Error{Kind: ErrNameInvalid, Name: name, Message: fmt.Sprintf("%s name %q is not a name", what, name)}
	}
	return nil
}

// IsPredefined reports whether PostgreSQL reserves the name.
func IsPredefined(name string) bool { return strings.HasPrefix(name, "pg_") }
