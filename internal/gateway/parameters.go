package gateway

import (
	"fmt"
	"strings"
)

// What Redshift's drivers send with the start-up message, and PostgreSQL refuses
// as unknown settings. They are dropped.
var redshiftParameters = map[string]bool{
	"client_protocol_version":  true,
	"driver_version":           true,
	"os_version":               true,
	"plugin_name":              true,
	"driver_discovery_version": true,
	"idp_type":                 true,
	"provider_name":            true,
	"token_type":               true,
	"identity_namespace":       true,
	"idc_client_display_name":  true,
}

// What Redshift's drivers send and PostgreSQL understands. From such a driver
// nothing else is passed on, since its next version may send something new; other
// clients may send any setting, as to PostgreSQL itself.
var redshiftAllowed = map[string]bool{
	"application_name":   true,
	"client_encoding":    true,
	"datestyle":          true,
	"timezone":           true,
	"extra_float_digits": true,
	"search_path":        true,
	"statement_timeout":  true,
	"lock_timeout":       true,
	"intervalstyle":      true,
	"geqo":               true,
	"bytea_output":       true,
}

// Settings that nobody may bring along: the first two say who one is, which the
// credential says; the others are a developer's, cannot be set once the session
// runs, and would hold or slow a server process.
var forbiddenSettings = map[string]bool{
	"role":                  true,
	"session_authorization": true,
	"post_auth_delay":       true,
	"ignore_system_indexes": true,
}

// What has a meaning of its own in a start-up message, and is no setting. From
// `options` it must not become a part of the upstream's: a second user name there
// would be the one that counts.
var structural = map[string]bool{"user": true, "database": true, "options": true, "replication": true, "": true}

// take sorts the parameters of a start-up message. Of a repeated name the last
// value counts, as in PostgreSQL.
func (m *startup) take(given []param) *refusal {
	var options string
	for _, p := range given {
		switch p.name {
		case "user":
			m.user = p.value
		case "database":
			m.database = p.value
		case "client_protocol_version":
			m.redshift = true
		}
	}
	for _, p := range given {
		switch {
		case p.name == "user", p.name == "database":
		case p.name == "options":
			options = p.value
		case p.name == "replication":
			// "true" and its spellings, "database", and what is no boolean.
			if !isFalse(p.value) {
				return &refusal{reason: ReasonProtocol, state: stateFeatureNotSupported, message: "replication connections are not supported through the gateway"}
			}
		case isProtocolOption(p.name):
			m.negotiate = append(m.negotiate, p.name)
		default:
			if r := m.set(p.name, p.value); r != nil {
				return r
			}
		}
	}
	if options == "" {
		return nil
	}
	// PostgreSQL applies the command-line options first, the settings after.
	plain := m.params
	m.params = nil
	if r := m.takeOptions(options); r != nil {
		return r
	}
	m.params = append(m.params, plain...)
	return nil
}

// set takes one setting for the upstream.
func (m *startup) set(name, value string) *refusal {
	folded := strings.ToLower(name) // PostgreSQL ignores the case of setting names
	if forbiddenSettings[folded] {
		return &refusal{reason: ReasonProtocol, state: stateInsufficientRights,
			message: fmt.Sprintf("parameter \"%s\" cannot be set when logging on through the gateway", clip(name))}
	}
	if structural[folded] || isProtocolOption(folded) {
		return &refusal{reason: ReasonProtocol, state: stateUndefinedObject, message: fmt.Sprintf("unrecognized configuration parameter \"%s\"", clip(name))}
	}
	if redshiftParameters[folded] || m.redshift && !redshiftAllowed[folded] {
		return nil
	}
	m.params = append(m.params, param{name, value})
	return nil
}

// takeOptions reads the command-line options that libpq's `options` and
// PGOPTIONS carry, and makes settings of them: -c name=value and --name=value.
// The other switches of postgres are not for clients.
func (m *startup) takeOptions(options string) *refusal {
	words := splitOptions(options)
	for i := 0; i < len(words); i++ {
		word := words[i]
		var setting string
		switch {
		case word == "-c" && i+1 < len(words):
			i++
			setting = words[i]
		case strings.HasPrefix(word, "-c") && len(word) > 2:
			setting = word[2:]
		case strings.HasPrefix(word, "--") && len(word) > 2:
			setting = word[2:]
		default:
			return &refusal{reason: ReasonProtocol, state: stateSyntaxError,
				message: fmt.Sprintf("invalid command-line argument for server process: %s", clip(word))}
		}
		name, value, ok := strings.Cut(setting, "=")
		if !ok || name == "" {
			return &refusal{reason: ReasonProtocol, state: stateSyntaxError, message: fmt.Sprintf("-c %s requires a value", clip(setting))}
		}
		if r := m.set(strings.ReplaceAll(name, "-", "_"), value); r != nil {
			return r
		}
	}
	return nil
}

// splitOptions splits at white space; a backslash takes the next character as it
// is (pg_split_opts in PostgreSQL).
func splitOptions(s string) []string {
	var words []string
	var word strings.Builder
	started := false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == ' ' || '\t' <= c && c <= '\r':
			if started {
				words = append(words, word.String())
				word.Reset()
				started = false
			}
		case c == '\\':
			started = true
			if i++; i < len(s) {
				word.WriteByte(s[i])
			}
		default:
			started = true
			word.WriteByte(c)
		}
	}
	if started {
		words = append(words, word.String())
	}
	return words
}

// isFalse follows PostgreSQL's parse_bool: unambiguous beginnings of false, no
// and off, and 0, in any case.
func isFalse(s string) bool {
	s = strings.ToLower(s)
	switch {
	case s == "":
		return false
	case strings.HasPrefix("false", s), strings.HasPrefix("no", s), s == "0":
		return true
	}
	return len(s) >= 2 && strings.HasPrefix("off", s)
}

// application is the application_name that the client gave.
func (m *startup) application() string {
	for i := len(m.params) - 1; i >= 0; i-- {
		if strings.EqualFold(m.params[i].name, "application_name") {
			return m.params[i].value
		}
	}
	return ""
}

// has says whether the client set a parameter itself.
func (m *startup) has(name string) bool {
	for _, p := range m.params {
		if strings.EqualFold(p.name, name) {
			return true
		}
	}
	return false
}

// bareVersion is what Redshift's drivers can parse of a server_version: "15.18"
// of "15.18 (Debian 15.18-1)", "17" of "17beta1".
func bareVersion(version string) string {
	end := 0
	for end < len(version) && (version[end] >= '0' && version[end] <= '9' || version[end] == '.') {
		end++
	}
	if bare := strings.TrimRight(version[:end], "."); bare != "" {
		return bare
	}
	return version
}
