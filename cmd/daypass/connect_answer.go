package main

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strings"
)

// The API's answers go into shells, connection strings and password files, so each value is
// checked first. Otherwise an attacker who controls the API, or the network to an API without
// TLS, could choose where the password is sent. The rules follow the API reference and the
// syntax of host names.
var (
	// A host name. Some networks have names with underscores.
	hostNameRule = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)*\.?$`)
	// DbName: "GetClusterCredentials", Request Parameters.
	databaseRule = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_+.@-]{0,63}$`)
	// DbUser in an answer: a prefix, the database user or the IAM user or role, and sometimes
	// groups (Amazon's guide shows them appended).
	logonNameRule = regexp.MustCompile(`^(IAM|IAMA|IAMR):([A-Za-z0-9_+=,.@-]{1,64})(:[a-z0-9_+.@-]{1,64})*$`)
	// DbPassword: visible ASCII.
	passwordRule = regexp.MustCompile(`^[!-~]+$`)
)

// maxPassword is the longest password that the gateway reads, in bytes.
const maxPassword = 4096

func checkHost(host string) error {
	if address, err := netip.ParseAddr(host); err == nil && address.Zone() == "" {
		return nil
	}
	if len(host) > 253 || !hostNameRule.MatchString(host) {
		return fmt.Errorf("%.80q is neither a host name nor an IP address", host)
	}
	return nil
}

// check checks every value of a logon before it is used. dbUser is the requested database user,
// or "" for the database user of the caller's own IAM identity.
func (l *logon) check(dbUser string) error {
	if err := l.checkPlace(); err != nil {
		return err
	}
	match := logonNameRule.FindStringSubmatch(l.user)
	switch {
	case l.user == "" || l.password == "":
		return errors.New("the API's answer has no credential in it: check --endpoint-url")
	case match == nil:
		return fmt.Errorf("the API's answer has DbUser %.80q, which is not a logon name: check --endpoint-url", l.user)
	case dbUser != "" && !strings.EqualFold(match[2], dbUser):
		return fmt.Errorf("the API's answer is for the database user %.80q, and %.80q was asked for: check --endpoint-url", match[2], dbUser)
	case len(l.password) > maxPassword || !passwordRule.MatchString(l.password.Reveal()):
		return errors.New("the API's answer has a DbPassword that is too long or has invalid characters: check --endpoint-url")
	case l.expiration.IsZero():
		return errors.New("the API's answer has no Expiration: check --endpoint-url")
	}
	return nil
}

// checkPlace checks the values that are known before a credential is requested: host, port and
// database.
func (l *logon) checkPlace() error {
	if err := checkHost(l.host); err != nil {
		return fmt.Errorf("the gateway's host: %w: check --endpoint-url, or give --host", err)
	}
	if l.port < 1 || l.port > 65535 {
		return fmt.Errorf("the gateway's port: %d is not 1 to 65535: check --endpoint-url, or give --port", l.port)
	}
	if l.database == "" {
		return errors.New("the cluster has no default database: name one after the cluster")
	}
	if !databaseRule.MatchString(l.database) {
		return fmt.Errorf("the database: %.80q is not a valid name (an ASCII letter, then up to 63 ASCII letters, digits and _ + . @ -): name another", l.database)
	}
	return nil
}
