package awscli

import (
	"bufio"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
)

// profile is one profile of the shared AWS configuration. The SDK reads the
// same files for what it needs; this is for the settings of the AWS CLI that
// the SDK does not know, and to tell a profile that does not exist.
type profile struct {
	name   string
	values map[string]string
	// partial says where half an access key is, and what it lacks.
	partial string
}

// loadProfile reads the profile that is asked for by option, by AWS_DEFAULT_PROFILE or
// by AWS_PROFILE, and otherwise the one named default, which need not exist.
func loadProfile(option string, getenv func(string) string) (profile, error) {
	name := profileName(option, getenv)
	p := profile{name: name, values: map[string]string{}}
	if p.name == "" {
		p.name = "default"
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
		own := profile{name: p.name, values: map[string]string{}}
		if !own.read(expandPath(path), isConfig) {
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
		return p, &failure{code: ExitConfiguration, message: fmt.Sprintf("The config profile (%s) could not be found", name),
			plain: fmt.Sprintf("profile %q: is neither in ~/.aws/config nor in ~/.aws/credentials: `aws configure list-profiles` has those that are", name)}
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

// read takes the profile's settings from a file, and reports whether the
// profile stands in it. A file that cannot be read holds nothing: what is in
// it that matters is missed later, by name.
func (p *profile) read(path string, isConfig bool) bool {
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

// isSection knows "[profile NAME]" of the configuration file, where NAME may
// be quoted, and "[NAME]" of the credentials file.
func (p *profile) isSection(section string, isConfig bool) bool {
	if !isConfig || p.name == "default" && section == "default" {
		return section == p.name
	}
	word, name, ok := strings.Cut(strings.ReplaceAll(section, "\t", " "), " ")
	return ok && word == "profile" && strings.Trim(strings.TrimSpace(name), `"'`) == p.name
}
