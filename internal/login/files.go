package login

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
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

// Save writes the sign-in to the cache, readable by this user only.
func (s *Session) Save(dir string) error {
	data, err := json.Marshal(s.token)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return replaceFile(cacheFile(dir, s.ARN), data, 0o600)
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

// CheckProfile refuses a profile that already has other keys: they would take precedence over
// those of the sign-in, or be lost.
func CheckProfile(name string, setting func(string) string) error {
	for _, key := range others {
		if setting(key) != "" {
			return fmt.Errorf("profile %q: has other keys already (%s): name another profile with --profile, which is made if it does not exist", name, key)
		}
	}
	return nil
}

// HasProfile reports whether an AWS configuration has a profile. A file that cannot be read
// has none.
func HasProfile(path, name string) bool {
	data, err := os.ReadFile(path)
	return err == nil && strings.Contains(string(data), "[profile "+name+"]")
}

// Profile holds the settings of a profile that lead AWS clients to the server and to the
// sign-in.
type Profile struct {
	Name, Session, Region, Endpoint string
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
	return replaceFile(path, []byte(p.edit(string(data))), mode)
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
	section := "profile " + p.Name
	if p.Name == "default" {
		section = "default"
	}
	set := [][2]string{{"login_session", p.Session}, {"region", p.Region}, {"endpoint_url", p.Endpoint}}
	if name := "daypass-" + p.Name; p.Services == "" || p.Services == name {
		set = append(set, [2]string{"services", name})
		text = setKeys(text, section, set)
		return setKeys(text, "services "+name, [][2]string{{"signin", "\n  endpoint_url = " + p.Endpoint}})
	}
	return setKeys(text, section, set)
}

// setKeys sets keys of a section. New keys go to its end. The lines of a nested value are
// replaced with their key.
func setKeys(text, section string, set [][2]string) string {
	lines := strings.SplitAfter(text, "\n")
	var out []string
	inside, done, drop := false, false, false
	finish := func() {
		at := len(out)
		for at > 0 && strings.TrimSpace(out[at-1]) == "" {
			at--
		}
		var added []string
		for _, kv := range set {
			separator := " = "
			if strings.HasPrefix(kv[1], "\n") {
				separator = " ="
			}
			added = append(added, kv[0]+separator+kv[1]+"\n")
		}
		out = append(out[:at], append(added, out[at:]...)...)
		done = true
	}
	for _, line := range lines {
		trimmed := strings.TrimSpace(line)
		if strings.HasPrefix(trimmed, "[") {
			if inside && !done {
				finish()
			}
			name, _, _ := strings.Cut(trimmed[1:], "]")
			word, rest, _ := strings.Cut(strings.ReplaceAll(strings.TrimSpace(name), "\t", " "), " ")
			inside = !done && strings.TrimSpace(word+" "+strings.Trim(strings.TrimSpace(rest), `"'`)) == section
			drop = false
		} else if inside {
			nested := line != "" && (line[0] == ' ' || line[0] == '\t') && trimmed != ""
			if !nested {
				key, _, _ := strings.Cut(trimmed, "=")
				drop = false
				for _, kv := range set {
					drop = drop || strings.EqualFold(strings.TrimSpace(key), kv[0])
				}
			}
			if drop {
				continue
			}
		}
		if line != "" {
			if !strings.HasSuffix(line, "\n") {
				line += "\n"
			}
			out = append(out, line)
		}
	}
	if inside && !done {
		finish()
	}
	if !done {
		if len(out) > 0 {
			out = append(out, "\n")
		}
		out = append(out, "["+section+"]\n")
		finish()
	}
	return strings.Join(out, "")
}
