package config

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/daypass/daypass/internal/adminconn"
	"github.com/daypass/daypass/internal/filemode"
	"github.com/daypass/daypass/internal/keyring"
)

// defaultUpstream is the administrative login of a cluster that does not set upstream.
const defaultUpstream = "postgres://daypass@127.0.0.1:5432/postgres?sslmode=disable"

// defaultPasswordVariable is the environment variable with the password of the administrative
// login, if there is only one cluster and it configures no other source.
const defaultPasswordVariable = "DAYPASS_UPSTREAM_PASSWORD"

// upstreamDefaults are the parameters that upstream may have, with their defaults.
// Environment variables and files in the home directory are not used. host and user are
// required.
var upstreamDefaults = connInfo{
	"host": "", "port": "5432", "database": "", "user": "", "password": "", "passfile": "",
	"connect_timeout": "0", "target_session_attrs": "any",
	"sslmode": "prefer", "sslnegotiation": "postgres", "sslsni": "1", "sslcertmode": "allow",
	"sslrootcert": "", "sslcert": "", "sslkey": "", "sslpassword": "",
	"channel_binding": "prefer", "require_auth": "", "min_protocol_version": "", "max_protocol_version": "",
	"application_name": "daypass", "options": "", "krbsrvname": "", "krbspn": "",
}

// upstreamFiles are the parameters whose value is the path of a file.
var upstreamFiles = []string{"sslrootcert", "sslcert", "sslkey", "passfile"}

// readUpstream parses the administrative login. A password in the connection string works,
// but upstream_password_env and _file keep it out of a file that is copied, shown and
// committed.
func (c *Cluster) readUpstream(s *section, only bool) {
	info, err := parseConnInfo(s.text("upstream"))
	if err != nil {
		s.errorf("upstream", "is not a PostgreSQL connection string: %v", err)
		return
	}
	own := s.at["upstream_password_env"] != nil || s.at["upstream_password_file"] != nil
	secret, from := s.secret("upstream_password")
	password := info["password"]
	if password != "" || info["sslpassword"] != "" {
		s.holdsSecret("upstream")
	}
	if own && password != "" {
		s.errorf("upstream", "has a password in it, and there is another key for one: leave it out of upstream")
		return
	}
	if !c.soundUpstream(s, info) {
		return
	}
	switch value, set := s.file.getenv(defaultPasswordVariable); {
	case own:
		password = secret.Reveal()
	case password != "" || !set || value == "":
	case only:
		password = value
	default:
		s.warnf("upstream", "no password is given to this cluster: with several clusters %s is read only where upstream_password_env names it", defaultPasswordVariable)
	}
	info["password"] = "" // the driver's errors could quote it
	complete, ok := completeUpstream(s, info)
	if !ok {
		return
	}
	parsed, err := pgx.ParseConfig(complete.String())
	if err != nil {
		s.errorf("upstream", "is not a PostgreSQL connection string: %v", plainParseError(err))
		return
	}
	maps.DeleteFunc(parsed.RuntimeParams, func(name, value string) bool { return complete[name] == "" })
	if password != "" {
		parsed.Password = password
	}
	if from == "upstream_password_file" {
		path := s.file.resolve(s.values[from].Value)
		if s.file.files[path].regular() { // what was written to a pipe can be read once
			c.ReadPassword = func() (keyring.Secret, error) {
				data, _, err := filemode.ReadRegular(path, maxFile)
				return secretOf(data), err
			}
		}
	}
	c.Upstream, c.TargetSessionAttrs, c.servers = parsed, complete["target_session_attrs"], info.servers()
	c.seal(s, complete)
}

// completeUpstream adds the defaults to the parameters of upstream, and makes the paths of files
// absolute. ok is false after a fault, which it reports.
func completeUpstream(s *section, info connInfo) (complete connInfo, ok bool) {
	complete = maps.Clone(upstreamDefaults)
	maps.Copy(complete, info)
	if complete["database"] == "" {
		complete["database"] = complete["user"] // as the server does
	}
	for _, name := range upstreamFiles {
		file := complete[name]
		if file == "" || file == "system" {
			continue
		}
		complete[name] = s.file.resolve(file)
		// The driver would read whatever it is, for ever. It reports a file that does not exist.
		if info, err := os.Stat(complete[name]); err == nil && (!info.Mode().IsRegular() || info.Size() > maxFile) {
			s.errorf("upstream", "%s: %s is not a regular file of %d MiB at most: use one", name, complete[name], maxFile>>20)
			return nil, false
		}
	}
	return complete, true
}

// plainParseError returns the cause of the driver's error, without the connection string.
func plainParseError(err error) error {
	if cause := errors.Unwrap(err); cause != nil {
		if strings.Contains(err.Error(), "failed to read service") {
			return errors.New("the environment variable PGSERVICE is set, and the driver follows it: unset it")
		}
		return cause
	}
	text := err.Error()
	if i := strings.LastIndex(text, "`: "); i >= 0 {
		text = text[i+3:]
	}
	return errors.New(text)
}

// soundUpstream checks that upstream names a server and a login, and how to authenticate the
// server.
func (c *Cluster) soundUpstream(s *section, info connInfo) bool {
	for _, name := range slices.Sorted(maps.Keys(info)) {
		switch _, known := upstreamDefaults[name]; {
		case known:
		case name == "service" || name == "servicefile":
			s.errorf("upstream", "does not follow %s: write host, user and sslmode here", name)
			return false
		default:
			s.errorf("upstream", "has the parameter %q, which it does not take; settings of the administrative connections are the gateway's own", name)
			return false
		}
	}
	var far []string
	for _, server := range info.servers() {
		if server.host == "" {
			s.errorf("upstream", "names no host: write one, such as 127.0.0.1 or the directory of a Unix socket")
			return false
		}
		if !adminconn.IsLoopback(server.host) {
			far = append(far, server.host)
		}
	}
	if info["user"] == "" {
		s.errorf("upstream", "names no user: write the administrative login, such as daypass@")
		return false
	}
	if len(far) == 0 {
		return true
	}
	mode, names := info["sslmode"], strings.Join(far, ", ")
	if info["sslrootcert"] == "system" {
		mode = "verify-full" // the default of the driver and libpq here
	}
	switch mode {
	case "":
		s.errorf("upstream", "names %s, which is not this machine, and no sslmode: add sslmode=verify-full, and sslrootcert=FILE "+
			"where the server's certificate is not one of a public authority", names)
		return false
	case "disable":
		s.warnf("upstream", "sslmode=disable: sessions at %s are not encrypted, and anyone on the network can read and change them; use sslmode=verify-full", names)
	case "allow", "prefer":
		s.warnf("upstream", "sslmode=%s: anyone on the network can turn the encryption off for %s; use sslmode=verify-full", mode, names)
	case "require":
		if info["sslrootcert"] == "" {
			s.warnf("upstream", "sslmode=require: encrypted, but any machine could answer as %s; use sslmode=verify-full with sslrootcert", names)
		}
	}
	return true
}

// warnOfSharing warns about clusters on the same server. Their session roles have the same
// names, but each cluster would set passwords of its own.
func (c *Config) warnOfSharing(sections []*section) {
	seen := map[server]string{}
	for i := range c.Clusters {
		warned := false
		for _, at := range c.Clusters[i].servers {
			at = at.canonical()
			other, shared := seen[at]
			if shared && !warned && other != c.Clusters[i].Identifier {
				sections[i].warnf("upstream", "leads to %s, as that of cluster %q does: both make session roles of the same names there, and each takes the other's "+
					"password away at every logon; use one cluster, with custom_domains for a second name", net.JoinHostPort(at.host, at.port), other)
				warned = true
			}
			if !shared {
				seen[at] = c.Clusters[i].Identifier
			}
		}
	}
}

// canonical gives all spellings of the same server one form.
func (s server) canonical() server {
	if ip := net.ParseIP(s.host); ip != nil && ip.IsLoopback() {
		s.host = "localhost"
	}
	if strings.HasPrefix(s.host, "/") {
		return s
	}
	s.host = strings.ToLower(strings.TrimSuffix(s.host, "."))
	return s
}

// seal sets the hashes of the cluster's settings: the keys of the file, and the files
// that the connection string refers to.
func (c *Cluster) seal(s *section, info connInfo) {
	connection, settings := s.fingerprint(reconnect), s.fingerprint(live, reconnect, restart)
	both := io.MultiWriter(connection, settings)
	fmt.Fprintf(both, "%q\n", c.Upstream.Password)
	for _, name := range upstreamFiles {
		if file := info[name]; file != "" && file != "system" {
			sum := s.file.sum(file)
			both.Write(sum[:])
			kind := filemode.Public
			if name == "sslkey" || name == "passfile" {
				kind = filemode.Private
			}
			s.file.judge(s.place("upstream"), s.path("upstream"), file, kind)
		}
	}
	connection.Sum(c.Connection[:0])
	settings.Sum(c.Settings[:0])
}
