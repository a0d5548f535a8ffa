package login

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// CacheDir returns the directory where the AWS CLI and SDKs keep sign-ins.
func CacheDir(getenv func(string) string) (string, error) {
	if dir := getenv("AWS_LOGIN_CACHE_DIRECTORY"); dir != "" {
		return dir, nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(home, ".aws", "login", "cache"), nil
}

// cacheFile returns the name of a sign-in's file.
func cacheFile(dir, session string) string {
	sum := sha256.Sum256([]byte(strings.TrimSpace(session)))
	return filepath.Join(dir, hex.EncodeToString(sum[:])+".json")
}

// Save writes the sign-in to the cache under its name, readable by this user only.
func (s *Session) Save(dir, name string) error {
	data, err := json.Marshal(s.token)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return replaceFile(cacheFile(dir, name), data, 0o600)
}

// NameFor returns the name under which a profile's sign-in is kept: its ARN, as with the AWS CLI,
// unless another profile in the AWS configuration keeps one with the same ARN at another server. Two
// servers may have the same account number.
func NameFor(path, profile, arn, endpoint string) (string, error) {
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	at, err := url.Parse(endpoint)
	if err != nil {
		return "", err
	}
	taken := false
	for _, one := range parseSections(string(data)) {
		server := strings.TrimRight(one.values["endpoint_url"], "/")
		taken = taken || one.name != section(profile) && one.values["login_session"] == arn && server != "" && server != strings.TrimRight(endpoint, "/")
	}
	if taken {
		return arn + "#" + at.Host, nil
	}
	return arn, nil
}

// HasSession reports whether a profile of an AWS configuration has a sign-in of this name.
func HasSession(path, name string) bool {
	data, err := os.ReadFile(path)
	return err == nil && slices.ContainsFunc(parseSections(string(data)), func(one parsedSection) bool { return one.values["login_session"] == name })
}

// HasProfile reports whether an AWS configuration has a profile. A file that cannot be read
// has none.
func HasProfile(path, name string) bool {
	data, err := os.ReadFile(path)
	return err == nil && slices.ContainsFunc(parseSections(string(data)), func(one parsedSection) bool { return one.name == section(name) })
}

// parsedSection is a section of an AWS configuration, without nested values.
type parsedSection struct {
	name   string
	values map[string]string // by the key in lower case
}

func parseSections(text string) (all []parsedSection) {
	for line := range strings.Lines(text) {
		trimmed := strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(trimmed, "["):
			all = append(all, parsedSection{sectionName(trimmed), map[string]string{}})
		case all == nil || trimmed == "" || trimmed[0] == '#' || trimmed[0] == ';' || line[0] == ' ' || line[0] == '\t':
		default:
			key, value, _ := strings.Cut(trimmed, "=")
			all[len(all)-1].values[strings.ToLower(strings.TrimSpace(key))] = strings.TrimSpace(value)
		}
	}
	return all
}

// section returns the name of a profile's section.
func section(profile string) string {
	if profile == "default" {
		return profile
	}
	return "profile " + profile
}

// Forget removes a sign-in from the cache, and reports whether it was there.
func Forget(dir, session string) (bool, error) {
	err := os.Remove(cacheFile(dir, session))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// replaceFile writes a file as a whole or not at all.
func replaceFile(path string, data []byte, mode fs.FileMode) error {
	temp, err := os.CreateTemp(filepath.Dir(path), ".daypass-*")
	if err != nil {
		return err
	}
	defer os.Remove(temp.Name())
	_, err = temp.Write(data)
	err = errors.Join(err, temp.Chmod(mode), temp.Close())
	if err != nil {
		return err
	}
	return os.Rename(temp.Name(), path)
}

// others are the settings that make a profile take its keys from another source than a
// sign-in.
var others = []string{"aws_access_key_id", "credential_process", "role_arn", "sso_account_id", "sso_role_name", "web_identity_token_file"}

// CheckProfile refuses a profile that belongs to something else: keys of its own would take precedence
// over those of the sign-in, or be lost, and a profile without an endpoint is one for Amazon, whose
// calls would go to the server from now on. exists reports whether there is such a profile.
func CheckProfile(name string, exists bool, setting func(string) string) error {
	for _, key := range others {
		if setting(key) != "" {
			return fmt.Errorf("profile %q: has other keys already (%s): name another profile with --profile, which is made if it does not exist", name, key)
		}
	}
	if exists && setting("endpoint_url") == "" && setting("services") == "" && setting("login_session") == "" {
		return fmt.Errorf("profile %q: is one for Amazon, because it has no endpoint_url: name another profile with --profile, which is made if it does not exist, or write the endpoint_url of the server into this one", name)
	}
	return nil
}

// CheckFiles makes sure that a sign-in can be kept, before a person is asked to sign in, and leaves
// nothing behind. path is the AWS configuration file.
func CheckFiles(cache, path string) error {
	if err := writable(cache); err != nil {
		return fmt.Errorf("%s: the sign-in cannot be kept there (%w): make the directory writable for you, or name another one in AWS_LOGIN_CACHE_DIRECTORY", cache, reason(err))
	}
	target := path
	if found, err := filepath.EvalSymlinks(path); err == nil {
		target = found
	}
	err := writable(filepath.Dir(target))
	// A file that its owner has made read-only could be replaced, but is not meant to be.
	if info, statErr := os.Stat(target); err == nil && statErr == nil && info.Mode().Perm()&0o200 == 0 {
		err = errors.New("the file is read-only")
	}
	if err != nil {
		return fmt.Errorf("%s: the profile cannot be written into it (%w): make file and directory writable for you, or name another file in AWS_CONFIG_FILE", path, reason(err))
	}
	return nil
}

// writable reports whether files can be made in a directory, or the directory itself.
func writable(dir string) error {
	for {
		if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) || filepath.Dir(dir) == dir {
			break
		}
		dir = filepath.Dir(dir)
	}
	f, err := os.CreateTemp(dir, ".daypass-*")
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

// reason returns an error without the name of the file.
func reason(err error) error {
	if path, ok := errors.AsType[*fs.PathError](err); ok {
		return path.Err
	}
	return err
}

// Profile holds the settings of a profile that lead AWS clients to the server and to the
// sign-in.
type Profile struct {
	Name, Session, Region, Endpoint string
	// CABundle is a file of CA certificates for the server, or "" to leave the setting as it is.
	CABundle string
	// Services is the services section that the profile already names. If it is empty, or
	// the section of an earlier sign-in, Save writes the section: the SDK for Go refreshes
	// keys at the address in that section, and at Amazon if there is none.
	Services string
}

// lockPatience is how long Save waits for others that write the same file.
const lockPatience = 10 * time.Second

// Save writes the profile into an AWS configuration file, and leaves the rest of the file as it
// is. Sign-ins that save at the same moment wait for each other.
func (p Profile) Save(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	unlock, err := lockFile(path, lockPatience)
	if err != nil {
		return err
	}
	defer unlock()
	data, err := os.ReadFile(path)
	mode := fs.FileMode(0o600)
	switch info, statErr := os.Stat(path); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case statErr == nil:
		mode = info.Mode().Perm()
	}
	text := p.edit(string(data))
	if text == string(data) {
		return nil
	}
	return replaceFile(path, []byte(text), mode)
}

// lockFile locks a file that is about to be replaced. The lock is on a file beside it, which is
// never deleted. The system releases the lock when the process ends.
func lockFile(path string, patience time.Duration) (unlock func(), err error) {
	name := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".daypass-lock")
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		err := tryLock(f)
		switch {
		case err == nil:
			return func() { f.Close() }, nil
		case !errors.Is(err, errLocked):
			f.Close()
			return nil, fmt.Errorf("locking %s: %w", name, err)
		case time.Now().After(end):
			f.Close()
			return nil, fmt.Errorf("%s: another process has been writing for %v: end it (%s is locked), then run the command again", path, patience, name)
		}
	}
}

var errLocked = errors.New("locked by another process")

func (p Profile) edit(text string) string {
	section := section(p.Name)
	set := [][2]string{{"login_session", p.Session}, {"region", p.Region}, {"endpoint_url", p.Endpoint}}
	if p.CABundle != "" {
		set = append(set, [2]string{"ca_bundle", p.CABundle})
	}
	if name := "daypass-" + p.Name; p.Services == "" || p.Services == name {
		set = append(set, [2]string{"services", name})
		text = setKeys(text, section, set)
		return setKeys(text, "services "+name, [][2]string{{"signin", "\n  endpoint_url = " + p.Endpoint}})
	}
	return setKeys(text, section, set)
}

// setKeys sets keys of a section: where they stand already, or else at its end. The lines of a nested
// value are replaced with their key, and comments are kept.
func setKeys(text, section string, set [][2]string) string {
	lines := slices.Collect(strings.Lines(text))
	if n := len(lines); n > 0 && !strings.HasSuffix(lines[n-1], "\n") {
		lines[n-1] += "\n"
	}
	from, to := findSection(lines, section)
	if from < 0 {
		if len(lines) > 0 {
			lines = append(lines, "\n")
		}
		lines = append(lines, "["+section+"]\n")
		from, to = len(lines), len(lines)
	}
	return strings.Join(slices.Concat(lines[:from], withKeys(lines[from:to], set), lines[to:]), "")
}

// findSection returns where the lines of a section are, without the line that begins it. from is
// negative if there is no such section.
func findSection(lines []string, section string) (from, to int) {
	from = -1
	for i, line := range lines {
		trimmed := strings.TrimSpace(line)
		switch {
		case !strings.HasPrefix(trimmed, "["):
		case from >= 0:
			return from, i
		case sectionName(trimmed) == section:
			from = i + 1
		}
	}
	return from, len(lines)
}

// withKeys returns the lines of a section with the keys set.
func withKeys(lines []string, set [][2]string) []string {
	var out []string
	missing := slices.Clone(set)
	drop := false // the nested value that follows
	for _, line := range lines {
		trimmed := strings.TrimSpace(line)
		switch {
		case trimmed == "" || strings.HasPrefix(trimmed, "#") || strings.HasPrefix(trimmed, ";"):
		case line[0] == ' ' || line[0] == '\t': // of a nested value
			if drop {
				continue
			}
		default:
			key, value, _ := strings.Cut(trimmed, "=")
			key = strings.TrimSpace(key)
			named := func(kv [2]string) bool { return strings.EqualFold(key, kv[0]) }
			at := slices.IndexFunc(missing, named)
			drop = slices.ContainsFunc(set, named)
			if drop && at < 0 { // a second time
				continue
			}
			if at >= 0 {
				if strings.TrimSpace(value) != missing[at][1] {
					line = assignment(missing[at])
				}
				missing = slices.Delete(missing, at, at+1)
			}
		}
		out = append(out, line)
	}
	end := len(out)
	for end > 0 && strings.TrimSpace(out[end-1]) == "" {
		end--
	}
	var added []string
	for _, kv := range missing {
		added = append(added, assignment(kv))
	}
	return slices.Insert(out, end, added...)
}

func assignment(kv [2]string) string {
	if strings.HasPrefix(kv[1], "\n") {
		return kv[0] + " =" + kv[1] + "\n"
	}
	return kv[0] + " = " + kv[1] + "\n"
}

// sectionName reads the line that begins a section: without brackets, quotes and surplus spaces.
func sectionName(line string) string {
	name, _, _ := strings.Cut(line[1:], "]")
	word, rest, _ := strings.Cut(strings.ReplaceAll(strings.TrimSpace(name), "\t", " "), " ")
	return strings.TrimSpace(word + " " + strings.Trim(strings.TrimSpace(rest), `"'`))
}
