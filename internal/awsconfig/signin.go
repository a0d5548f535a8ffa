package awsconfig

import (
	"os"
	"path/filepath"
	"strings"
)

// LoginSession is the key of a profile that names a sign-in. `aws login` writes it.
const LoginSession = "login_session"

// NeedsSignIn reports whether a profile's access key is not available because no one is signed
// in, or because the sign-in has ended.
func NeedsSignIn(p Profile, err error) bool {
	if p.Setting(LoginSession) == "" || p.overridden || err == nil {
		return false
	}
	// The SDK keeps only the text of the underlying error.
	text := err.Error()
	return strings.Contains(text, "load login token") || strings.Contains(text, "create oauth2 token") && strings.Contains(text, "reauthenticate")
}

// File returns the path of the shared AWS configuration.
func File(getenv func(string) string) (string, error) {
	if path := getenv("AWS_CONFIG_FILE"); path != "" {
		return ExpandPath(path), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(home, ".aws", "config"), nil
}

// ReadProfile reads the profile that the option or the environment names.
func ReadProfile(option string, getenv func(string) string) (Profile, error) {
	return loadProfile(option, getenv)
}
