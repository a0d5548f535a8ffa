package awsconfig

import (
	"bufio"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// Profile is one profile of the shared AWS configuration. The SDK reads the same files. A
// Profile also has the settings that only the AWS CLI knows, and makes it possible to report a
// profile that does not exist.
type Profile struct {
	Name   string
	values map[string]string
	// partial names the file that has half an access key, and the missing half.
	partial string
}

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
			Plain: fmt.Sprintf("profile %q: is neither in ~/.aws/config nor in ~/.aws/credentials: see `aws configure list-profiles`", name)}
	}
	return p, nil
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
