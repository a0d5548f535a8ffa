package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/daypass/daypass/internal/config"
)

// systemCA is libpq's name for the certificates that the operating system
// trusts.
const systemCA = "system"

// secure decides how the gateway's certificate is checked. The password is
// sent as it is inside of TLS, so whoever is at the other end gets it: unless
// the caller says otherwise the certificate is checked in full. Only at a
// loopback address, where nobody can be in between, goes it without.
func (o *connectOptions) secure(to *logon) error {
	to.sslMode = cmp.Or(o.sslMode, os.Getenv("PGSSLMODE"))
	to.sslRootCert = cmp.Or(o.sslRootCert, os.Getenv("DAYPASS_SSLROOTCERT"), os.Getenv("PGSSLROOTCERT"))
	if to.sslRootCert != "" && to.sslRootCert != systemCA {
		if _, err := os.Stat(to.sslRootCert); err != nil {
			return fmt.Errorf("the CA certificate of the gateway: %w", err)
		}
		// What --print prints is for other tools, which may run elsewhere.
		path, err := filepath.Abs(to.sslRootCert)
		if err != nil {
			return fmt.Errorf("the CA certificate of the gateway: %w", err)
		}
		to.sslRootCert = path
	}
	if to.sslMode != "" {
		return nil
	}
	to.sslMode = "verify-full"
	if to.sslRootCert != "" || hasDefaultRootCert() {
		return nil
	}
	if config.IsLoopback(to.host) {
		to.sslMode = "require"
		return nil
	}
	return errors.New(`no CA certificate is known to check the gateway with. Give one of

    --sslrootcert PATH      a copy of data/tls/ca.crt of the gateway, or DAYPASS_SSLROOTCERT=PATH
    --sslrootcert system    when its certificate is from a public CA (needs psql 16 or newer)
    --sslmode require       to send the password to whoever answers`)
}

// hasDefaultRootCert reports whether libpq finds a CA by itself.
func hasDefaultRootCert() bool {
	dir := ""
	if runtime.GOOS == "windows" {
		dir = filepath.Join(os.Getenv("APPDATA"), "postgresql")
	} else if home, err := os.UserHomeDir(); err == nil {
		dir = filepath.Join(home, ".postgresql")
	}
	info, err := os.Stat(filepath.Join(dir, "root.crt"))
	return dir != "" && err == nil && info.Mode().IsRegular()
}
