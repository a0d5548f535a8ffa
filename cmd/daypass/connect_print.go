package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
)

// format returns a logon as other programs take it. It holds the password.
func (l *logon) format(as string) (string, error) {
	switch as {
	case "env":
		lines := []string{"unset " + strings.Join(l.diverting(), " ")}
		for _, s := range l.settings() {
			lines = append(lines, fmt.Sprintf("export %s=%s", s.env, shellQuote(s.value)))
		}
		return strings.Join(lines, "\n"), nil
	case "uri":
		return l.uri(), nil
	case "dsn":
		var pairs []string
		for _, s := range l.settings() {
			pairs = append(pairs, s.keyword+"="+conninfoQuote(s.value))
		}
		return strings.Join(pairs, " "), nil
	case "pgpass":
		var fields []string
		for _, field := range []string{l.host, strconv.Itoa(l.port), l.database, l.user, l.password.Reveal()} {
			fields = append(fields, strings.NewReplacer(`\`, `\\`, `:`, `\:`).Replace(field))
		}
		return strings.Join(fields, ":"), nil
	}
	return l.json()
}

// setting is one connection parameter: its name in the environment and in a
// connection string of libpq.
type setting struct{ env, keyword, value string }

func (l *logon) settings() []setting {
	all := []setting{
		{"PGHOST", "host", l.host},
		{"PGPORT", "port", strconv.Itoa(l.port)},
		{"PGDATABASE", "dbname", l.database},
		{"PGUSER", "user", l.user},
		{"PGPASSWORD", "password", l.password.Reveal()},
		{"PGSSLMODE", "sslmode", l.sslMode},
	}
	if l.sslRootCert != "" {
		all = append(all, setting{"PGSSLROOTCERT", "sslrootcert", l.sslRootCert})
	}
	return all
}

func (l *logon) uri() string {
	uri := fmt.Sprintf("postgresql://%s:%s@%s/%s?sslmode=%s", percent(l.user), percent(l.password.Reveal()),
		net.JoinHostPort(l.host, strconv.Itoa(l.port)), percent(l.database), percent(l.sslMode))
	if l.sslRootCert != "" {
		uri += "&sslrootcert=" + percent(l.sslRootCert)
	}
	return uri
}

// percent encodes all but the unreserved characters of RFC 3986.
func percent(s string) string {
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._~", c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

func (l *logon) json() (string, error) {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "    ")
	err := encoder.Encode(struct {
		Host        string `json:"host"`
		Port        int    `json:"port"`
		Database    string `json:"database"`
		User        string `json:"user"`
		Password    string `json:"password"`
		SSLMode     string `json:"sslmode"`
		SSLRootCert string `json:"sslrootcert,omitempty"`
		Expiration  string `json:"expiration"`
		URI         string `json:"uri"`
	}{l.host, l.port, l.database, l.user, l.password.Reveal(), l.sslMode, l.sslRootCert, l.expiration, l.uri()})
	return strings.TrimSuffix(b.String(), "\n"), err
}

// diverting are the variables that send libpq elsewhere, or make it refuse the
// gateway, whatever else it is told: all that the logon does not set itself.
func (l *logon) diverting() []string {
	names := []string{"PGHOSTADDR", "PGSERVICE", "PGREQUIREAUTH", "PGCHANNELBINDING", "PGREQUIRESSL", "PGTARGETSESSIONATTRS"}
	if l.sslRootCert == "" {
		names = append(names, "PGSSLROOTCERT")
	}
	return names
}

// diverted says what of the environment, which is likely to be the environment of
// whoever takes what --print prints, goes before a URI or a line of a password
// file. "" is nothing. What env prints unsets it.
func (l *logon) diverted(as string, getenv func(string) string) string {
	names := []string{"PGHOSTADDR", "PGSERVICE"}
	switch as {
	case "env":
		return ""
	case "pgpass":
		names = append(names, "PGPASSWORD", "PGPASSFILE")
	}
	names = slices.DeleteFunc(names, func(name string) bool { return getenv(name) == "" })
	if len(names) == 0 {
		return ""
	}
	return fmt.Sprintf("libpq does not go by what is printed alone: unset %s, or the password may go to another server", strings.Join(names, " "))
}

// environ is an environment for psql: the given one, with the logon in it, and
// without what would send psql elsewhere.
func (l *logon) environ(base []string) []string {
	drop := map[string]bool{}
	for _, name := range l.diverting() {
		drop[name] = true
	}
	for _, s := range l.settings() {
		drop[s.env] = true
	}
	var all []string
	for _, entry := range base {
		if name, _, _ := strings.Cut(entry, "="); !drop[name] {
			all = append(all, entry)
		}
	}
	for _, s := range l.settings() {
		if s.value != "" {
			all = append(all, s.env+"="+s.value)
		}
	}
	return all
}
