package dbuser

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
)

// maxName is NAMEDATALEN - 1. PostgreSQL counts bytes and cuts what is longer,
// silently, so that two names become one; here every name is measured first.
const maxName = 63

// sessionNames are the role names one Need is about. A name that is not one role's
// alone would lend one user's rights to another, so the preferred name is a
// one-to-one image of (kind, user, groups):
//
//	database user   IAM:alice                     IAM:alice:analysts:finance
//	identity        IAMA:IAM:ana                  IAMA:IAMR:etl:analysts
//
// Database users and groups hold no colon, identities exactly one. A name that
// is longer than PostgreSQL allows, or that breaks these rules, becomes
// a readable prefix, "~" and 130 bits of a hash over all parts.
type sessionNames struct {
	preferred string
	fallback  string
	displaced string // the fallback of the session role that may hold an identity's own name
}

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
	n := sessionNames{preferred: plain, fallback: hashedName(plain, append([]string{prefix, user}, groups...)...)}
	if !regular || len(plain) > maxName {
		n.preferred = n.fallback
	}
	if held, ok := strings.CutPrefix(user, "IAM:"); ok && identity {
		n.displaced = sessionRoleNames(held, nil, false).fallback
	}
	return n
}

// retiredName is the name of a session role that had to step aside because the
// administrative login cannot put it right.
func retiredName(name string, oid uint32) string {
	return hashedName(name, "retired", name, fmt.Sprint(oid))
}

// hashedName is a readable prefix of plain and a hash over parts.
func hashedName(plain string, parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		var size [4]byte
		binary.BigEndian.PutUint32(size[:], uint32(len(p)))
		h.Write(size[:])
		h.Write([]byte(p))
	}
	hash := strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(h.Sum(nil)))[:26]
	return cutRunes(plain, maxName-1-len(hash)) + "~" + hash
}

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

// normalize sorts and deduplicates the groups and refuses what can never be
// the name of a role or a database, before anything is sent anywhere.
func (n Need) normalize() (Need, error) {
	if err := checkName("user", n.User); err != nil {
		return n, err
	}
	n.Groups = slices.Clone(n.Groups)
	slices.Sort(n.Groups)
	n.Groups = slices.Compact(n.Groups)
	for _, g := range n.Groups {
		if err := checkName("group", g); err != nil {
			return n, err
		}
	}
	if n.Database != "" {
		if err := checkName("database", n.Database); err != nil {
			return n, err
		}
	}
	if n.Identity {
		if !strings.HasPrefix(n.User, "IAM:") && !strings.HasPrefix(n.User, "IAMR:") {
			return n, &Error{Kind: ErrNameInvalid, Name: n.User, Message: fmt.Sprintf("identity user %q does not begin with IAM: or IAMR:", n.User)}
		}
		n.AutoCreate = true
	}
	return n, nil
}

func checkName(what, name string) error {
	switch {
	case len(name) > maxName:
		return &Error{Kind: ErrNameTooLong, Name: name,
			Message: fmt.Sprintf("%s name %q has %d bytes; PostgreSQL keeps %d", what, name, len(name), maxName)}
	case name == "" || strings.IndexByte(name, 0) >= 0 || !utf8.ValidString(name):
		return &Error{Kind: ErrNameInvalid, Name: name, Message: fmt.Sprintf("%s name %q is not a name", what, name)}
	}
	return nil
}

// ident quotes an identifier.
func ident(name string) string { return pgx.Identifier{name}.Sanitize() }

// literal quotes a string. The connections of this package run with
// standard_conforming_strings on, so a backslash is a backslash.
func literal(s string) string {
	return "'" + strings.ReplaceAll(strings.ReplaceAll(s, "\x00", ""), "'", "''") + "'"
}

// isPredefined reports whether PostgreSQL reserves the name.
func isPredefined(name string) bool { return strings.HasPrefix(name, "pg_") }
