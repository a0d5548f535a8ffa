package pgwire

import (
	"fmt"
	"slices"
	"strings"
)

// redshiftParameters are sent by Redshift's drivers in the start-up message, and
// PostgreSQL refuses them as unknown settings. They are dropped.
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

// redshiftAllowed are sent by Redshift's drivers too, and PostgreSQL understands
// them. Nothing else is passed on from such a driver, since its next version may send
// something new. Other clients may send any setting, as to PostgreSQL itself.
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

// forbiddenSettings are refused, with a hint. The first two name a role, which only the credential may
// choose. The others are for developers of PostgreSQL, cannot be set in a running session,
// and would stop or slow a server process.
var forbiddenSettings = map[string]string{
	"role":                  otherRole,
	"session_authorization": otherRole,
	"post_auth_delay":       "Leave it out.",
	"ignore_system_indexes": "Leave it out.",
}

const otherRole = "The credential decides which role the session has: ask for the group in DbGroups, or use SET ROLE after the logon."

// structural parameters have a meaning of their own in a start-up message and are not
// settings. They must not reach the upstream's start-up message through `options`: a
// second user name there would be the one that counts.
var structural = map[string]bool{"user": true, "database": true, "options": true, "replication": true, "": true}

// CheckReplication returns an error if a start-up message asks for a replication connection, with
// "true" and its spellings, "database", or a value that is not a boolean.
func CheckReplication(given []Param) *StartupError {
	for _, p := range given {
		if p.Name == "replication" && !isFalse(p.Value) {
			return &StartupError{SQLState: StateFeatureNotSupported, Message: "replication connections are not supported through the gateway",
				Hint: "Connect to the PostgreSQL server itself for base backups, WAL and logical decoding."}
		}
	}
	return nil
}

// take sorts the parameters of a start-up message. The last value of a repeated name
// counts, as in PostgreSQL.
func (m *Startup) take(given []Param) *StartupError {
	var options string
	for _, p := range given {
		switch p.Name {
		case "user":
			m.User = p.Value
		case "database":
			m.Database = p.Value
		case "client_protocol_version":
			m.Redshift = true
		}
	}
	// After the names, which the record of the refusal has.
	if err := CheckReplication(given); err != nil {
		return err
	}
	for _, p := range given {
		switch {
		case p.Name == "user", p.Name == "database", p.Name == "replication":
		case p.Name == "options":
			options = p.Value
		case isProtocolOption(p.Name):
			m.negotiate = append(m.negotiate, p.Name)
		default:
			if err := m.set(p.Name, p.Value); err != nil {
				return err
			}
		}
	}
	if options == "" {
		return nil
	}
	// PostgreSQL applies the command-line options first, the settings after.
	plain := m.Params
	m.Params = nil
	if err := m.takeOptions(options); err != nil {
		return err
	}
	m.Params = append(m.Params, plain...)
	return nil
}

// set adds one setting for the upstream, or refuses it.
func (m *Startup) set(name, value string) *StartupError {
	folded := strings.ToLower(name) // PostgreSQL ignores the case of setting names
	if hint := forbiddenSettings[folded]; hint != "" {
		return &StartupError{SQLState: StateInsufficientRights, Hint: hint,
			Message: fmt.Sprintf("parameter \"%s\" cannot be set when logging on through the gateway", Clip(name))}
	}
	if structural[folded] || isProtocolOption(folded) {
		return &StartupError{SQLState: StateUndefinedObject, Message: fmt.Sprintf("unrecognized configuration parameter \"%s\"", Clip(name))}
	}
	if redshiftParameters[folded] || m.Redshift && !redshiftAllowed[folded] {
		return nil
	}
	m.Params = append(m.Params, Param{name, value})
	return nil
}

// takeOptions turns the command-line options that libpq's `options` and PGOPTIONS
// carry into settings: -c name=value and --name=value. Other switches of postgres are
// refused.
func (m *Startup) takeOptions(options string) *StartupError {
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
			return &StartupError{SQLState: StateSyntaxError,
				Message: fmt.Sprintf("invalid command-line argument for server process: %s", Clip(word)),
				Hint:    "Only settings are passed on, as -c NAME=VALUE or --NAME=VALUE; a backslash goes before a space in a value."}
		}
		name, value, ok := strings.Cut(setting, "=")
		if !ok || name == "" {
			return &StartupError{SQLState: StateSyntaxError, Message: fmt.Sprintf("-c %s requires a value", Clip(setting))}
		}
		if err := m.set(strings.ReplaceAll(name, "-", "_"), value); err != nil {
			return err
		}
	}
	return nil
}

// splitOptions splits at white space; a backslash escapes the next character
// (pg_split_opts in PostgreSQL).
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

// isFalse reports whether PostgreSQL's parse_bool reads s as false: an unambiguous
// prefix of false, no or off, or 0, in any case.
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

// Application returns the application_name that the client gave.
func (m *Startup) Application() string {
	for i := len(m.Params) - 1; i >= 0; i-- {
		if strings.EqualFold(m.Params[i].Name, "application_name") {
			return m.Params[i].Value
		}
	}
	return ""
}

// Has reports whether the client set a parameter.
func (m *Startup) Has(name string) bool {
	return slices.ContainsFunc(m.Params, func(p Param) bool { return strings.EqualFold(p.Name, name) })
}

// BareVersion returns the part of a server_version that Redshift's drivers can parse:
// "15.18" of "15.18 (Debian 15.18-1)", "17" of "17beta1".
func BareVersion(version string) string {
	end := 0
	for end < len(version) && (version[end] >= '0' && version[end] <= '9' || version[end] == '.') {
		end++
	}
	if bare := strings.TrimRight(version[:end], "."); bare != "" {
		return bare
	}
	return version
}
