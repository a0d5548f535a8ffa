package awsconfig

import (
	"bufio"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/daypass/daypass/internal/quote"
)

// Profile is one profile of the shared AWS configuration. The SDK reads the same files. A
// Profile also has the settings that only the AWS CLI knows, and makes it possible to report a
// profile that does not exist.
type Profile struct {
	Name   string
	values map[string]string
	// partial names the file that has half an access key, and the missing half.
	partial string
	// overridden reports whether an access key in the environment takes precedence over the profile.
	overridden bool
}

// Exists reports whether the profile has any setting.
func (p Profile) Exists() bool { return len(p.values) > 0 }

// Overridden reports whether an access key in the environment takes precedence over the profile's,
// because no option names the profile.
func (p Profile) Overridden() bool { return p.overridden }

// Setting returns the value of a key of the profile, or "".
func (p Profile) Setting(key string) string { return p.values[key] }

// loadProfile reads the profile that the option, AWS_DEFAULT_PROFILE or AWS_PROFILE names.
// Without any of them it reads the profile "default", which need not exist.
func loadProfile(option string, getenv func(string) string) (Profile, error) {
	name := profileName(option, getenv)
	p := Profile{Name: name, values: map[string]string{}}
	if p.Name == "" {
		p.Name = "default"
	}
	p.overridden = option == "" && getenv("AWS_ACCESS_KEY_ID") != "" && getenv("AWS_SECRET_ACCESS_KEY") != ""
	known := false
	for _, file := range []struct{ env, path string }{
		{"AWS_CONFIG_FILE", filepath.Join(".aws", "config")},
		{"AWS_SHARED_CREDENTIALS_FILE", filepath.Join(".aws", "credentials")},
	} {
		path := getenv(file.env)
		if path == "" {
			home, err := os.UserHomeDir()
			if err != nil {
				continue
			}
			path = filepath.Join(home, file.path)
		}
		isConfig := file.env == "AWS_CONFIG_FILE"
		own := Profile{Name: p.Name, values: map[string]string{}}
		if !own.read(ExpandPath(path), isConfig) {
			continue
		}
		known = true
		maps.Copy(p.values, own.values)
		where := "shared-credentials-file"
		if isConfig {
			where = "config-file"
		}
		const id, secret = "aws_access_key_id", "aws_secret_access_key"
		switch {
		case own.values[id] != "" && own.values[secret] == "":
			p.partial = where + ", missing: " + secret
		case own.values[id] == "" && own.values[secret] != "":
			p.partial = where + ", missing: " + id
		}
	}
	if name != "" && !known {
		return p, &Failure{Code: ExitConfiguration, Message: fmt.Sprintf("The config profile (%s) could not be found", name),
			Plain: fmt.Sprintf("profile %q: is neither in ~/.aws/config nor in ~/.aws/credentials: %s", name, nextStep(getenv))}
	}
	return p, nil
}

// nextStep names the profiles that the configuration file has.
func nextStep(getenv func(string) string) string {
	const most = 10
	path, err := File(getenv)
	if err != nil {
		return "check its name"
	}
	file, err := os.Open(path)
	if err != nil {
		return "make it, or check AWS_CONFIG_FILE and AWS_PROFILE"
	}
	defer file.Close()
	var names []string
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		section, ok := strings.CutPrefix(strings.TrimSpace(lines.Text()), "[")
		if !ok || len(names) > most {
			continue
		}
		section, _, _ = strings.Cut(section, "]")
		word, name, _ := strings.Cut(strings.ReplaceAll(strings.TrimSpace(section), "\t", " "), " ")
		switch name = strings.Trim(strings.TrimSpace(name), `"'`); {
		case word == "default" && name == "":
			names = append(names, "default")
		case word == "profile" && name != "":
			names = append(names, name)
		}
	}
	switch {
	case len(names) == 0:
		return "make it, or check AWS_CONFIG_FILE and AWS_PROFILE"
	case len(names) > most:
		names = append(names[:most], "…")
	}
	return "the profiles are " + quote.Terminal(strings.Join(names, ", "))
}

func profileName(option string, getenv func(string) string) string {
	for _, name := range []string{option, getenv("AWS_DEFAULT_PROFILE"), getenv("AWS_PROFILE")} {
		if name != "" {
			return name
		}
	}
	return ""
}

// read reads the profile's settings from a file, and reports whether the file has the profile. A
// file that cannot be read counts as empty; if a setting is needed, it is reported as missing
// later.
func (p *Profile) read(path string, isConfig bool) bool {
	file, err := os.Open(path)
	if err != nil {
		return false
	}
	defer file.Close()
	found, inside := false, false
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		line := lines.Text()
		trimmed := strings.TrimSpace(line)
		switch {
		case trimmed == "" || trimmed[0] == '#' || trimmed[0] == ';':
		case trimmed[0] == '[':
			section, _, _ := strings.Cut(trimmed[1:], "]")
			inside = p.isSection(strings.TrimSpace(section), isConfig)
			found = found || inside
		case inside && line[0] != ' ' && line[0] != '\t':
			key, value, ok := strings.Cut(trimmed, "=")
			if ok {
				p.values[strings.ToLower(strings.TrimSpace(key))] = strings.TrimSpace(value)
			}
		}
	}
	return found
}

// isSection reports whether a section belongs to the profile: "[profile NAME]" in the
// configuration file, where NAME may be quoted, or "[NAME]" in the credentials file.
func (p *Profile) isSection(section string, isConfig bool) bool {
	if !isConfig || p.Name == "default" && section == "default" {
		return section == p.Name
	}
	word, name, ok := strings.Cut(strings.ReplaceAll(section, "\t", " "), " ")
	return ok && word == "profile" && strings.Trim(strings.TrimSpace(name), `"'`) == p.Name
}

// ExpandPath expands ~ and environment variables, as the AWS CLI does.
func ExpandPath(path string) string {
	if path == "~" || strings.HasPrefix(path, "~/") || runtime.GOOS == "windows" && strings.HasPrefix(path, `~\`) {
		if home, err := os.UserHomeDir(); err == nil {
			path = filepath.Join(home, path[1:])
		}
	}
	return os.Expand(path, func(name string) string {
		if value, ok := os.LookupEnv(name); ok {
			return value
		}
		return "$" + name
	})
}
