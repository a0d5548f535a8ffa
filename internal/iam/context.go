package iam

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Context holds the condition keys of one request and their values. Key names,
// including the tag key in aws:PrincipalTag/KEY, ignore case. The zero value
// and a nil *Context are empty. Reading is safe for concurrent use, changing is
// not.
type Context struct {
	hashes []uint32 // of the entries' keys; a request has few keys, so a linear search is faster than a map
	values []contextValue
}

type contextValue struct {
	key  string    // in the form of lowerKey
	one  [1]string // the value of a single-valued key
	many []string
	list bool
}

// values returns the values, which are empty if the key is absent.
func (v *contextValue) values() []string {
	if v.list {
		return v.many
	}
	return v.one[:]
}

// NewContext returns an empty Context.
func NewContext() *Context {
	const usual = 24
	var c struct {
		Context
		hashes [usual]uint32
		values [usual]contextValue
	}
	c.Context = Context{hashes: c.hashes[:0], values: c.values[:0]}
	return &c.Context
}

// Set sets a single-valued key. An empty value counts as a value.
func (c *Context) Set(key, value string) {
	v := c.put(key)
	v.one[0], v.many, v.list = value, nil, false
}

// SetList sets a multivalued key. A key without values is absent. The caller must not change the
// slice afterwards.
func (c *Context) SetList(key string, values []string) {
	v := c.put(key)
	v.one[0], v.many, v.list = "", values, true
}

// put returns the entry of a key, and adds one if necessary.
func (c *Context) put(key string) *contextValue {
	key, hash := contextKey(key)
	i := c.find(key, hash)
	if i < 0 {
		i = len(c.values)
		c.hashes = append(c.hashes, hash)
		c.values = append(c.values, contextValue{key: key})
	}
	return &c.values[i]
}

// Lookup returns the values of a key, or nil if the key is absent.
func (c *Context) Lookup(key string) []string {
	if v := c.lookup(contextKey(key)); v != nil {
		return v.values()
	}
	return nil
}

// Clone returns a copy that can be changed without changing c.
func (c *Context) Clone() *Context {
	clone := NewContext()
	if c != nil {
		clone.hashes = append(clone.hashes, c.hashes...)
		clone.values = append(clone.values, c.values...)
	}
	return clone
}

// Len returns the number of keys that are present.
func (c *Context) Len() int {
	n := 0
	if c != nil {
		for i := range c.values {
			if len(c.values[i].values()) > 0 {
				n++
			}
		}
	}
	return n
}

// lookup finds a key by its lowerKey form and the hashKey of that form. It returns nil if the
// key is absent or has no values.
func (c *Context) lookup(lower string, hash uint32) *contextValue {
	if c == nil {
		return nil
	}
	if i := c.find(lower, hash); i >= 0 && len(c.values[i].values()) > 0 {
		return &c.values[i]
	}
	return nil
}

// lookupWork returns the steps for looking up a key in a context with more keys than usual.
func (c *Context) lookupWork() int {
	if c == nil {
		return 0
	}
	return len(c.hashes) >> 5
}

func (c *Context) find(lower string, hash uint32) int {
	for i, h := range c.hashes {
		if h == hash && c.values[i].key == lower {
			return i
		}
	}
	return -1
}

// contextKey returns the lowerKey and the hashKey of a key, using tables of well-known keys.
func contextKey(key string) (lower string, hash uint32) {
	if usual, ok := usualKeys[key]; ok {
		return usual.lower, usual.hash
	}
	hash = fnvOffset
	for i := range len(key) {
		if key[i] >= utf8.RuneSelf {
			lower = lowerKey(key)
			return lower, hashKey(lower)
		}
		hash = (hash ^ uint32(lowerASCII(key[i]))) * fnvPrime
	}
	if known := lowerKeys[hash]; len(known) == len(key) && equalFold(known, key) {
		return known, hash
	}
	return lowerKey(key), hash
}

// lowerKeys is a constant: the usual keys of requests in their lowerKey form, by hashKey.
var lowerKeys = func() map[uint32]string {
	keys := make(map[uint32]string)
	for _, g := range globalKeys {
		keys[hashKey(g.name)] = g.name
	}
	for _, a := range actions {
		for _, key := range a.keys {
			lower := lowerKey(key)
			keys[hashKey(lower)] = lower
		}
	}
	return keys
}()

// usualKeys is a constant: the keys of most requests as AWS spells them.
var usualKeys = func() map[string]foldedKey {
	keys := make(map[string]foldedKey)
	for _, key := range []string{"aws:CurrentTime", "aws:EpochTime", "aws:PrincipalAccount", "aws:PrincipalArn", "aws:PrincipalIsAWSService",
		"aws:PrincipalType", "aws:RequestedRegion", "aws:SecureTransport", "aws:SourceIp", "aws:UserAgent", "aws:ViaAWSService",
		"aws:userid", "aws:username", "redshift:DbName", "redshift:DbUser", "redshift:DurationSeconds"} {
		lower := lowerKey(key)
		keys[key] = foldedKey{lower, hashKey(lower)}
	}
	return keys
}()

type foldedKey struct {
	lower string
	hash  uint32
}

// lowerKey returns the form in which key names are compared. Only letters that a policy
// can contain are folded: if the Kelvin sign folded to k, a caller could choose a tag
// key that passes a check of aws:TagKeys and then counts as another key.
func lowerKey(key string) string {
	return strings.Map(func(r rune) rune {
		if r > 0xFF {
			return r
		}
		return unicode.ToLower(r)
	}, key)
}

// FoldKey returns the form in which names of condition keys are compared. It also applies to the
// keys of tags and the names of claims, which become part of condition keys. Code that compares
// them differently would disagree with the policies.
func FoldKey(key string) string { return lowerKey(key) }

// 32-bit FNV-1a.
const (
	fnvOffset = 2166136261
	fnvPrime  = 16777619
)

// hashKey returns the hash of what lowerKey returns.
func hashKey(lower string) uint32 {
	hash := uint32(fnvOffset)
	for i := range len(lower) {
		hash = (hash ^ uint32(lower[i])) * fnvPrime
	}
	return hash
}
