package config

import (
	"regexp"
	"time"
)

// key is one key of the configuration file. The tables of keys (table*.go) are the only
// description of the file: the reader checks against them and takes defaults from them,
// and the JSON schema and docs/configuration.md are generated from them.
type key struct {
	name     string
	value    kind
	doc      string // one sentence or more of Markdown
	required bool
	absent   string // the value of a key that is left out, as it would be written; optional
	unset    string // what leaving the key out means, if absent cannot express it
	change   change

	pattern     *regexp.Regexp // for a text; optional
	want        string         // describes pattern in the error
	least, most int64          // for an integer, or for a duration in seconds
	none        bool           // an empty list or mapping is a valid value
	oneOf       string         // of the keys with the same word here, only one may be given
	reread      bool           // for a path: the file is read whenever it is used
	regular     bool           // for a path: the file is read more than once, so it cannot be a pipe; implied by reread
	private     bool           // for a path: no other account may read the file
	keys        []key          // for a mapping, or for each mapping in a list
}

// kind is the form of a key's value.
type kind int

const (
	text kind = iota
	boolean
	integer
	seconds    // a duration: a number of seconds, or a number with a unit
	path       // of a file to read; a relative path starts at the configuration's directory
	secretText // a secret, written out
	secretEnv  // the name of an environment variable with a secret
	secretFile // the path of a file with a secret
	policy     // a policy document, or the path of one
	texts      // a list
	policies   // a list
	tags       // texts by name
	mapping    // a section of keys
	mappings   // a list of mappings
)

// change is what it takes to put a changed key in force.
type change int

const (
	unknown   change = iota // not used in the table: catches a key without a change
	live                    // nothing is needed
	reconnect               // new administrative connections of its cluster; sessions continue
	restart                 // a restart: a reload that changes it is refused
)

// wanted describes the expected form of the value, for errors.
func (k kind) wanted() string {
	switch k {
	case boolean:
		return "true or false"
	case integer:
		return "a whole number"
	case seconds:
		return "a duration"
	case policy:
		return "a policy document or the path of a .json file"
	case texts, policies, mappings:
		return "a list"
	case tags, mapping:
		return "a mapping of keys to values"
	default:
		return "a text"
	}
}

// secretKeys returns the keys for one secret: from the environment, from a file and, if
// inline is not empty, written in the configuration itself.
func secretKeys(name, doc, inline string, required bool, c change) []key {
	list := []key{
		{name: name + "_env", value: secretEnv, doc: doc + ", in the environment variable of this name.", oneOf: name, required: required, change: c},
		{name: name + "_file", value: secretFile, doc: doc + ", in the file of this path. Line feeds at its end are not part of it.", oneOf: name, required: required, change: c},
	}
	if inline != "" {
		list = append(list, key{name: name, value: secretText, doc: doc + ", written out. " + inline, oneOf: name, required: required, change: c})
	}
	return list
}

// join puts rows of a table together.
func join(parts ...[]key) []key {
	var all []key
	for _, part := range parts {
		all = append(all, part...)
	}
	return all
}

const year = 365 * 24 * time.Hour

func inSeconds(d time.Duration) int64 { return int64(d / time.Second) }

// mend suggests how to fix a key without a value.
func (k *key) mend(how string) string {
	if k.required && k.oneOf == "" {
		return "it is required"
	}
	return how + ", or leave the key out"
}
