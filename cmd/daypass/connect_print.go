package main

import (
	"net"
	"strconv"
	"strings"

	"github.com/daypass/daypass/internal/quote"
)

// format returns a logon for other programs, password included. Call check first.
func (l *logon) format(as string, getenv func(string) string) (string, error) {
	switch as {
	case "env":
		return l.shell(getenv)
	case "uri":
		return l.uri()
	case "dsn":
		return l.dsn()
	case "pgpass":
		return quote.PassFile(l.host, strconv.Itoa(l.port), l.database, l.user, l.password.Reveal())
	}
	return l.json()
}

// setting is one parameter of a connection, under its name in an output format.
type setting struct{ name, value string }

// environment returns the variables of libpq that a logon sets.
func (l *logon) environment() []setting {
	all := []setting{
		{"PGHOST", l.host},
		{"PGPORT", strconv.Itoa(l.port)},
		{"PGDATABASE", l.database},
		{"PGUSER", l.user},
		{"PGPASSWORD", l.password.Reveal()},
		{"PGSSLMODE", l.sslMode},
		// With a Kerberos ticket libpq prefers GSSAPI to TLS, and then it checks no certificate,
		// whatever sslmode says.
		{"PGGSSENCMODE", "disable"},
	}
	if l.sslRootCert != "" {
		all = append(all, setting{"PGSSLROOTCERT", l.sslRootCert})
	}
	return all
}

func (l *logon) shell(getenv func(string) string) (string, error) {
	lines := []string{"unset " + strings.Join(l.unwanted(getenv), " ")}
	for _, s := range l.environment() {
		value, err := quote.Shell(s.value)
		if err != nil {
			return "", err
		}
		lines = append(lines, "export "+s.name+"="+value)
	}
	return strings.Join(lines, "\n"), nil
}

func (l *logon) dsn() (string, error) {
	pairs := []setting{
		{"host", l.host}, {"port", strconv.Itoa(l.port)}, {"dbname", l.database}, {"user", l.user}, {"password", l.password.Reveal()}, {"sslmode", l.sslMode},
	}
	if l.sslRootCert != "" {
		pairs = append(pairs, setting{"sslrootcert", l.sslRootCert})
	}
	words := make([]string, len(pairs))
	for i, pair := range pairs {
		value, err := quote.Conninfo(pair.value)
		if err != nil {
			return "", err
		}
		words[i] = pair.name + "=" + value
	}
	return strings.Join(words, " "), nil
}

func (l *logon) uri() (string, error) {
	parts := []string{l.user, l.password.Reveal(), l.database, l.sslMode, l.sslRootCert}
	for i := range parts {
		part, err := quote.URI(parts[i])
		if err != nil {
			return "", err
		}
		parts[i] = part
	}
	// check has validated the host: it needs no percent-encoding, and JoinHostPort puts an IPv6
	// address in brackets.
	uri := "postgresql://" + parts[0] + ":" + parts[1] + "@" + net.JoinHostPort(l.host, strconv.Itoa(l.port)) + "/" + parts[2] + "?sslmode=" + parts[3]
	if l.sslRootCert != "" {
		uri += "&sslrootcert=" + parts[4]
	}
	return uri, nil
}

func (l *logon) json() (string, error) {
	uri, err := l.uri()
	if err != nil {
		return "", err
	}
	var b strings.Builder
	err = writeIndented(&b, struct {
		Host        string `json:"host"`
		Port        int    `json:"port"`
		Database    string `json:"database"`
		User        string `json:"user"`
		Password    string `json:"password"`
		SSLMode     string `json:"sslmode"`
		SSLRootCert string `json:"sslrootcert,omitempty"`
		Expiration  string `json:"expiration"`
		URI         string `json:"uri"`
	}{l.host, l.port, l.database, l.user, l.password.Reveal(), l.sslMode, l.sslRootCert, l.expiration.UTC().Format("2006-01-02T15:04:05.000Z"), uri})
	return strings.TrimSuffix(b.String(), "\n"), err
}
