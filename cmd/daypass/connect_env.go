package main

import (
	"fmt"
	"slices"
	"strings"
)

// libpq reads more than thirty variables. The logon sets those for the server and the user. It
// removes the variables below, which would send the password elsewhere, make the connection less
// safe, or make the logon fail. Variables that only make the connection stricter, or concern the
// session, stay: PGSSLCRL, PGOPTIONS, PGAPPNAME, PGCONNECT_TIMEOUT and so on.
var diverting = []string{
	"PGHOSTADDR",           // another server than the host that is checked
	"PGSERVICE",            // the same, from a file
	"PGREQUIRESSL",         // an old sslmode
	"PGSSLCOMPRESSION",     // lets an observer guess secrets
	"PGSSLCERT",            // reveals the caller's identity to any server that asks
	"PGSSLKEY",             // the key for that certificate
	"PGSSLCERTMODE",        // "require" fails, because the gateway asks for no certificate
	"PGGSSDELEGATION",      // hands Kerberos tickets to the server
	"PGREQUIREAUTH",        // the gateway asks for a password only
	"PGCHANNELBINDING",     // does not work with a password
	"PGTARGETSESSIONATTRS", // the cluster's configuration decides
}

// tlsVersions are removed if they allow versions that libpq does not allow by default.
var tlsVersions = []string{"PGSSLMINPROTOCOLVERSION", "PGSSLMAXPROTOCOLVERSION"}

// unwanted returns the variables that the logon removes.
func (l *logon) unwanted(getenv func(string) string) []string {
	names := slices.Clone(diverting)
	if l.sslRootCert == "" {
		names = append(names, "PGSSLROOTCERT")
	}
	for _, name := range tlsVersions {
		if oldTLS(getenv(name)) {
			names = append(names, name)
		}
	}
	return names
}

func oldTLS(version string) bool {
	return strings.EqualFold(version, "TLSv1") || strings.EqualFold(version, "TLSv1.1")
}

// diverted returns a warning about variables that take precedence over a URI or a line of a
// password file, or "". It assumes that the program which uses the output of --print has the
// same environment. The output of --print env clears the variables itself.
func (l *logon) diverted(as string, getenv func(string) string) string {
	var elsewhere, weaker []string
	for _, name := range []string{"PGHOSTADDR", "PGSERVICE"} {
		if getenv(name) != "" {
			elsewhere = append(elsewhere, name)
		}
	}
	if as == "pgpass" {
		for _, name := range []string{"PGPASSWORD", "PGPASSFILE"} {
			if getenv(name) != "" {
				elsewhere = append(elsewhere, name)
			}
		}
		// A password file has no TLS settings.
		if mode := getenv("PGSSLMODE"); mode != "" && strength(mode) < strength(l.sslMode) {
			weaker = append(weaker, "PGSSLMODE")
		}
	}
	for _, name := range tlsVersions {
		if oldTLS(getenv(name)) {
			weaker = append(weaker, name)
		}
	}
	if getenv("PGGSSDELEGATION") == "1" {
		weaker = append(weaker, "PGGSSDELEGATION")
	}
	// With a Kerberos ticket libpq prefers GSSAPI to TLS, whatever sslmode says.
	if mode := getenv("PGGSSENCMODE"); mode != "" && mode != "disable" {
		weaker = append(weaker, "PGGSSENCMODE")
	}
	switch {
	case as == "env":
		return ""
	case len(elsewhere) > 0:
		return fmt.Sprintf("libpq does not go by what is printed alone: unset %s, or the password may go to another server", strings.Join(elsewhere, " "))
	case len(weaker) > 0:
		return fmt.Sprintf("libpq does not go by what is printed alone: unset %s, or the connection is less safe than it should be", strings.Join(weaker, " "))
	}
	return ""
}

// environ returns an environment for psql: base with the logon added, and without variables that
// would make psql connect elsewhere.
func (l *logon) environ(base []string, getenv func(string) string) []string {
	drop := map[string]bool{}
	for _, name := range l.unwanted(getenv) {
		drop[name] = true
	}
	settings := l.environment()
	for _, s := range settings {
		drop[s.name] = true
	}
	var all []string
	for _, entry := range base {
		// Windows ignores the case of names, and no program uses a variable pghost as
		// well as PGHOST.
		if name, _, _ := strings.Cut(entry, "="); !drop[strings.ToUpper(name)] {
			all = append(all, entry)
		}
	}
	for _, s := range settings {
		all = append(all, s.name+"="+s.value)
	}
	return all
}
