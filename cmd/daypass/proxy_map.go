package main

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/daypass/daypass/internal/config"
	"github.com/daypass/daypass/internal/quote"
)

// anyDatabase in a map lets the client name the database.
const anyDatabase = "*"

// proxyMap is a port or a socket of the proxy, and what it connects to.
type proxyMap struct {
	where     string // in messages: the flag, or file and line
	listen    int
	socketDir string
	to        connectOptions
}

// parseProxyMap reads the value of --map. A word without "=" continues groups.
func parseProxyMap(text string) (*proxyMap, error) {
	m := &proxyMap{where: "--map " + text}
	words := strings.Split(text, ",")
	place, target, found := strings.Cut(words[0], "=")
	if !found {
		return nil, errors.New("want PORT=CLUSTER/DATABASE,user=USER")
	}
	// A loopback address before the port changes nothing: the proxy listens on all of them.
	if host, port, err := net.SplitHostPort(place); err == nil {
		if host != "" && host != "127.0.0.1" && host != "localhost" && host != "::1" {
			return nil, fmt.Errorf("the proxy listens on this machine only, and %s is not one of its loopback addresses: write the port alone", host)
		}
		place = port
	}
	listen, err := strconv.Atoi(place)
	if err != nil || listen < 1 || listen > 65535 {
		return nil, fmt.Errorf("the port %q: must be 1 to 65535", place)
	}
	m.listen = listen
	m.to.cluster, m.to.database, _ = strings.Cut(target, "/")
	seen := map[string]bool{}
	last := ""
	for _, word := range words[1:] {
		name, value, found := strings.Cut(word, "=")
		if !found && last == "groups" && name != "with-iam" && name != "auto-create" {
			name, value, found = "groups", word, true
		} else if seen[name] {
			return nil, fmt.Errorf("%s is given twice", name)
		}
		seen[name], last = true, name
		if flag := name == "with-iam" || name == "auto-create"; flag == found && !(flag && value == "true") || found && value == "" {
			return nil, fmt.Errorf("%q: want a setting such as user=alice, groups=analysts, auto-create or profile=work (daypass proxy --help)", word)
		}
		if err := m.set(name, value); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *proxyMap) set(name, value string) (err error) {
	switch name {
	case "user":
		m.to.user = value
	case "with-iam":
		m.to.withIAM = true
	case "groups":
		err = m.to.groups.Set(value)
	case "auto-create":
		m.to.autoCreate = true
	case "duration":
		m.to.duration = value
	case "profile":
		m.to.api.profile = value
	case "host":
		m.to.host = value
	case "port":
		if m.to.port, err = strconv.Atoi(value); err != nil || m.to.port == 0 {
			err = fmt.Errorf("port=%s: must be 1 to 65535", value)
		}
	case "sslmode":
		m.to.sslMode = value
	case "sslrootcert":
		m.to.sslRootCert = value
	case "unix-socket":
		m.socketDir = value
	default:
		err = fmt.Errorf("%s is not a setting of a map (daypass proxy --help)", name)
	}
	return err
}

// proxyMapOf converts an entry of the file.
func proxyMapOf(c config.ProxyMap) *proxyMap {
	m := &proxyMap{where: c.Where, listen: c.Listen, socketDir: c.UnixSocket, to: connectOptions{cluster: c.Cluster, database: c.Database, user: c.User,
		withIAM: c.WithIAM, autoCreate: c.AutoCreate, groups: c.Groups, duration: c.Duration, host: c.Host, port: c.Port, sslMode: c.SSLMode, sslRootCert: c.SSLRootCert}}
	m.to.api.profile = c.Profile
	return m
}

// complete fills in from the flags what the map leaves out, and checks the map.
func (m *proxyMap) complete(o *proxyOptions) (err error) {
	m.socketDir = cmp.Or(m.socketDir, o.socketDir)
	if m.socketDir != "" {
		if m.socketDir, err = filepath.Abs(m.socketDir); err != nil {
			return err
		}
	}
	to := &m.to
	to.sslMode, to.sslRootCert = cmp.Or(to.sslMode, o.common.sslMode), cmp.Or(to.sslRootCert, o.common.sslRootCert)
	profile := to.api.profile
	to.api = o.common.api
	to.direct = o.direct
	to.api.profile = cmp.Or(profile, to.api.profile)
	switch {
	case to.cluster == "":
		return errors.New("no cluster: want PORT=CLUSTER/DATABASE")
	case to.database == "":
		return fmt.Errorf("no database: write %s/DATABASE, or %[1]s/* to let the client choose", to.cluster)
	case to.database != anyDatabase && !databaseRule.MatchString(to.database):
		return fmt.Errorf("the database: %.80q is not a valid name (an ASCII letter, then up to 63 ASCII letters, digits and _ + . @ -)", to.database)
	case to.user == "" && !to.withIAM:
		return errors.New("no database user: add user=USER, or with-iam for the user of your own IAM identity")
	case to.sslMode != "" && !slices.Contains([]string{"verify-full", "verify-ca", "require"}, to.sslMode):
		return fmt.Errorf("sslmode %s: must be verify-full, verify-ca or require", to.sslMode)
	}
	if to.host != "" {
		if err := checkHost(to.host); err != nil {
			return fmt.Errorf("the gateway's host: %w", err)
		}
	}
	_, err = to.check()
	return err
}

// name is the map in messages and in the log.
func (m *proxyMap) name() string {
	text := m.to.cluster + "/" + m.to.database + " as "
	if m.to.withIAM {
		text += "your IAM identity"
	} else {
		text += m.to.user
	}
	if len(m.to.groups) > 0 {
		text += " with " + strings.Join(m.to.groups, ", ")
	}
	if m.to.api.profile != "" {
		text += " (profile " + m.to.api.profile + ")"
	}
	return text
}

// uri returns a connection string for clients of the proxy. The user name in it has no effect: the map
// decides which user a connection gets.
func (m *proxyMap) uri() (string, error) {
	user, err := quote.URI(cmp.Or(m.to.user, "me"))
	if err != nil {
		return "", err
	}
	database := m.to.database
	if database == anyDatabase {
		database = "DATABASE"
	}
	if database, err = quote.URI(database); err != nil {
		return "", err
	}
	if m.socketDir == "" {
		return fmt.Sprintf("postgresql://%s@127.0.0.1:%d/%s?sslmode=disable", user, m.listen, database), nil
	}
	dir, err := quote.URI(m.socketDir)
	return fmt.Sprintf("postgresql://%s@:%d/%s?host=%s", user, m.listen, database, dir), err
}
