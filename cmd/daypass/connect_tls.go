package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/daypass/daypass/internal/config"
)

// systemCA is libpq's name for the certificates that the operating system
// trusts.
const systemCA = "system"

// secure decides how to check the gateway's certificate, and returns a note for the caller.
// Inside TLS the password is sent as it is, so an impostor would get it. Unless a flag says
// otherwise, the certificate is fully checked. The exception is a loopback address without a
// configured CA: no one can intercept that connection. The environment can make the check
// stricter but not weaker, because PGSSLMODE may be meant for other servers.
func (o *connectOptions) secure(to *logon, getenv func(string) string) (note string, err error) {
	named := "--sslrootcert"
	to.sslRootCert = o.sslRootCert
	for _, variable := range []string{"DAYPASS_SSLROOTCERT", "PGSSLROOTCERT"} {
		if to.sslRootCert == "" {
			to.sslRootCert, named = getenv(variable), variable
		}
	}
	if to.sslRootCert != "" && to.sslRootCert != systemCA {
		if _, err := os.Stat(to.sslRootCert); err != nil {
			return "", fmt.Errorf("the CA certificate of the gateway: %w: name its file in %s", err, named)
		}
		// Other tools use the output of --print, perhaps in another directory.
		path, err := filepath.Abs(to.sslRootCert)
		if err != nil {
			return "", fmt.Errorf("the CA certificate of the gateway: %w", err)
		}
		to.sslRootCert = path
	}
	if to.sslMode = o.sslMode; to.sslMode != "" {
		return "", nil
	}
	wish := getenv("PGSSLMODE")
	if wish != "" && strength(wish) < 0 {
		return "", fmt.Errorf("PGSSLMODE is %.40q: must be one of %s", wish, strings.Join(sslModes, ", "))
	}
	to.sslMode = "verify-full"
	if to.sslRootCert == "" && defaultRootCert() == "" {
		if !config.IsLoopback(to.host) {
			return "", errors.New(noCA)
		}
		to.sslMode = "require"
	}
	switch {
	case wish == "":
	case strength(wish) >= strength(to.sslMode):
		to.sslMode = wish
	default:
		note = fmt.Sprintf("PGSSLMODE=%s is weaker than %s and does not count here; --sslmode %[1]s does", wish, to.sslMode)
	}
	return note, nil
}

const noCA = `no CA certificate is known to check the gateway with. Give one of

    --sslrootcert PATH      a copy of data/tls/ca.crt of the gateway, or DAYPASS_SSLROOTCERT=PATH
    --sslrootcert system    when its certificate is from a public CA (needs psql 16 or newer)
    --sslmode require       to send the password to any server that answers; PGSSLMODE is not enough for that`

// sslModes are libpq's values of sslmode, from the weakest to the strongest.
var sslModes = []string{"disable", "allow", "prefer", "require", "verify-ca", "verify-full"}

// strength returns the rank of a value of sslmode, or -1 for any other text.
func strength(mode string) int { return slices.Index(sslModes, mode) }

// defaultRootCert returns the CA file that libpq reads by default, or "" if it does not exist.
func defaultRootCert() string {
	dir := ""
	if runtime.GOOS == "windows" {
		dir = filepath.Join(os.Getenv("APPDATA"), "postgresql")
	} else if home, err := os.UserHomeDir(); err == nil {
		dir = filepath.Join(home, ".postgresql")
	}
	path := filepath.Join(dir, "root.crt")
	if info, err := os.Stat(path); dir == "" || err != nil || !info.Mode().IsRegular() {
		return ""
	}
	return path
}
