package iam

import "strings"

// Context holds the condition keys of one request and their values. Key names,
// including the tag key in aws:PrincipalTag/KEY, ignore case. The zero value
// and a nil *Context are empty. Reading is safe for concurrent use, changing is
// not.
type Context struct {
	values map[string]contextValue // by lower-case key
}

type contextValue struct {
	key    string // as set
	values []string
	list   bool
}

// NewContext returns an empty Context.
func NewContext() *Context { return &Context{} }

// Set gives a single-valued key its value. An empty value is a value.
func (c *Context) Set(key, value string) {
	c.put(contextValue{key: key, values: []string{value}})
}

// SetList gives a multivalued key its values. A key without values is absent.
// The caller must not change the slice afterwards.
func (c *Context) SetList(key string, values []string) {
	if len(values) == 0 {
		delete(c.values, lowerKey(key))
		return
	}
	c.put(contextValue{key: key, values: values, list: true})
}

func (c *Context) put(v contextValue) {
	if c.values == nil {
		c.values = make(map[string]contextValue, 32)
	}
	c.values[lowerKey(v.key)] = v
}

// Lookup returns the values of a key, nil when it is absent.
func (c *Context) Lookup(key string) []string { return c.lookup(lowerKey(key)).values }

// Clone returns a copy that can be changed without changing c.
func (c *Context) Clone() *Context {
	clone := &Context{values: make(map[string]contextValue, c.Len()+4)}
	if c != nil {
		for k, v := range c.values {
			clone.values[k] = v
		}
	}
	return clone
}

// Len is the number of keys.
func (c *Context) Len() int {
	if c == nil {
		return 0
	}
	return len(c.values)
}

// lowerKey is the form in which key names are compared.
func lowerKey(key string) string { return strings.ToLower(key) }

func (c *Context) lookup(lower string) contextValue {
	if c == nil {
		return contextValue{}
	}
	return c.values[lower]
}
