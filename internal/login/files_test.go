package login

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestProfileIsWrittenAmongOthers(t *testing.T) {
	p := Profile{Name: "work", Session: "arn:new", Region: "us-east-1", Endpoint: "https://d.example.com"}
	const written = "login_session = arn:new\nregion = us-east-1\nendpoint_url = https://d.example.com\n"
	const services = "\n[services daypass-work]\nsignin =\n  endpoint_url = https://d.example.com\n"
	for name, row := range map[string]struct {
		services, before, after string
	}{
		"a new file":         {"", "", "[profile work]\n" + written + "services = daypass-work\n" + services},
		"beside another":     {"", "[default]\nregion = eu-west-1 ; mine", "[default]\nregion = eu-west-1 ; mine\n\n[profile work]\n" + written + "services = daypass-work\n" + services},
		"services of theirs": {"mine", "[profile work]\nservices = mine\n", "[profile work]\nservices = mine\n" + written},
		"again, at another server": {"daypass-work", "# top\n[profile work]\nlogin_session = arn:old\n# kept\noutput = json\nregion = x\nservices = daypass-work\n\n[profile z]\nregion = y\n" +
			"\n[services daypass-work]\nsignin =\n  endpoint_url = https://old.example.com\nsts =\n  endpoint_url = https://kept.example.com\n",
			"# top\n[profile work]\nlogin_session = arn:new\n# kept\noutput = json\nregion = us-east-1\nservices = daypass-work\nendpoint_url = https://d.example.com\n\n[profile z]\nregion = y\n" +
				"\n[services daypass-work]\nsignin =\n  endpoint_url = https://d.example.com\nsts =\n  endpoint_url = https://kept.example.com\n"},
		"by hand": {"x", "[ profile  work ]\n; a note\nregion = eu-west-1\n  # indented\ns3 =\n    # inside\n    addressing_style = path\nregion = twice\n",
			"[ profile  work ]\n; a note\nregion = us-east-1\n  # indented\ns3 =\n    # inside\n    addressing_style = path\nlogin_session = arn:new\nendpoint_url = https://d.example.com\n"},
		"nothing to change": {"x", "[profile work]\r\nendpoint_url=https://d.example.com\r\nregion=us-east-1\r\nlogin_session=arn:new",
			"[profile work]\r\nendpoint_url=https://d.example.com\r\nregion=us-east-1\r\nlogin_session=arn:new\n"},
		"quoted, with a nested value": {"x", "[profile \"work\"]\ns3 =\n  region = nested\nregion = z\n[profile workers]\nregion = w\n",
			"[profile \"work\"]\ns3 =\n  region = nested\nregion = us-east-1\nlogin_session = arn:new\nendpoint_url = https://d.example.com\n[profile workers]\nregion = w\n"},
	} {
		p.Services = row.services
		if got := p.edit(row.before); got != row.after {
			t.Errorf("%s:\n%s\nwant\n%s", name, got, row.after)
		}
	}
	p.Services = ""
	once := p.edit("[default]\nregion = x\n")
	p.Services = "daypass-work"
	if again := p.edit(once); strings.Count(again, "login_session") != 1 || strings.Count(again, "[services daypass-work]") != 1 {
		t.Errorf("written twice:\n%s", again)
	}
}

// Files with keys are private. A configuration file keeps its mode, and a symbolic link stays
// one.
func TestFilesOfASignIn(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "login", "cache")
	s := &Session{ARN: "arn:aws:sts::123456789012:assumed-role/r/s", token: token{RefreshToken: "x"}}
	if err := s.Save(dir, s.ARN); err != nil {
		t.Fatal(err)
	}
	// The name is that of botocore's generate_login_cache_key.
	info, err := os.Stat(cacheFile(dir, s.ARN))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the cache: %v, %v, want mode 0600", info, err)
	}
	if there, err := Forget(dir, s.ARN); !there || err != nil {
		t.Errorf("Forget = %t, %v", there, err)
	}
	if there, err := Forget(dir, s.ARN); there || err != nil {
		t.Errorf("Forget again = %t, %v", there, err)
	}
	real, link := filepath.Join(t.TempDir(), "real"), filepath.Join(t.TempDir(), "config")
	if err := errors.Join(os.WriteFile(real, []byte("[default]\n"), 0o640), os.Chmod(real, 0o640)); err != nil { // the umask may be strict
		t.Fatal(err)
	}
	if err := os.Symlink(real, link); err != nil {
		t.Fatal(err)
	}
	if err := (Profile{Name: "work", Session: "s"}).Save(link); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(real); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("the configuration has mode %v, %v, want 0640 as before", info.Mode(), err)
	}
	if text, _ := os.ReadFile(real); !strings.Contains(string(text), "[profile work]") {
		t.Errorf("the file behind the link was not written:\n%s", text)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link is gone: %v, %v", info, err)
	}
	setting := func(key string) string { return map[string]string{"role_arn": "x"}[key] }
	if err := CheckProfile("work", true, setting); err == nil {
		t.Error("a profile with other keys was taken")
	}
	for _, row := range []struct {
		exists bool
		set    map[string]string
		taken  bool
	}{
		{false, nil, true},
		{true, map[string]string{"region": "eu-west-1"}, false}, // its calls go to Amazon
		{true, map[string]string{"region": "eu-west-1", "endpoint_url": "https://old.example.com"}, true},
		{true, map[string]string{"services": "mine"}, true},
		{true, map[string]string{"login_session": "arn:x"}, true},
	} {
		if err := CheckProfile("default", row.exists, func(key string) string { return row.set[key] }); (err == nil) != row.taken {
			t.Errorf("a profile with %v: %v", row.set, err)
		}
	}
}

// TestTwoServersWithOneAccount: AWS clients keep a sign-in by its name alone. A second server at which
// the person has the same ARN does not replace the keys of the first one.
func TestTwoServersWithOneAccount(t *testing.T) {
	const arn = "arn:aws:sts::123456789012:assumed-role/analyst/ana"
	path := filepath.Join(t.TempDir(), "config")
	signIn := func(profile, endpoint string) string {
		t.Helper()
		name, err := NameFor(path, profile, arn, endpoint)
		if err != nil {
			t.Fatal(err)
		}
		if err := (Profile{Name: profile, Session: name, Region: "r", Endpoint: endpoint}).Save(path); err != nil {
			t.Fatal(err)
		}
		return name
	}
	for _, row := range []struct{ profile, endpoint, name string }{
		{"work", "https://a.example.com", arn},
		{"again", "https://a.example.com/", arn}, // one sign-in for both profiles
		{"staging", "https://b.example.com:8440", arn + "#b.example.com:8440"},
		{"staging", "https://b.example.com:8440", arn + "#b.example.com:8440"},
		{"work", "https://a.example.com", arn},
	} {
		if name := signIn(row.profile, row.endpoint); name != row.name {
			t.Errorf("%s at %s is kept as %s, want %s", row.profile, row.endpoint, name, row.name)
		}
	}
	if !HasSession(path, arn) || HasSession(path, "arn:x") {
		t.Error("HasSession does not tell which sign-ins there are")
	}
	for name, want := range map[string]bool{"work": true, "staging": true, "default": false, "b.example.com": false} {
		if HasProfile(path, name) != want {
			t.Errorf("HasProfile(%s) = %t", name, !want)
		}
	}
}

// TestFilesAreCheckedFirst: a sign-in that could not be kept is refused before the person signs in, and a file that
// its owner has made read-only is not replaced.
func TestFilesAreCheckedFirst(t *testing.T) {
	home := t.TempDir()
	cache, path := filepath.Join(home, ".aws", "login", "cache"), filepath.Join(home, ".aws", "config")
	if err := CheckFiles(cache, path); err != nil {
		t.Errorf("a new home: %v", err)
	}
	if left, err := os.ReadDir(home); err != nil || len(left) > 0 {
		t.Errorf("a new home: the check has left %v, %v", left, err)
	}
	for _, dir := range []string{cache, filepath.Dir(path)} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := CheckFiles(cache, path); err != nil {
		t.Errorf("directories: %v", err)
	}
	if err := os.WriteFile(path, []byte("[default]\n"), 0o444); err != nil {
		t.Fatal(err)
	}
	if err := CheckFiles(cache, path); err == nil || !strings.Contains(err.Error(), path+": the profile cannot be written into it (the file is read-only)") {
		t.Errorf("a read-only file: %v", err)
	}
	blocked := filepath.Join(home, "file")
	if err := os.WriteFile(blocked, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := CheckFiles(filepath.Join(blocked, "cache"), path); err == nil || !strings.Contains(err.Error(), "AWS_LOGIN_CACHE_DIRECTORY") {
		t.Errorf("a cache that cannot be made: %v", err)
	}
	if err := CheckFiles(cache, filepath.Join(blocked, "config")); err == nil || !strings.Contains(err.Error(), "AWS_CONFIG_FILE") {
		t.Errorf("a directory that cannot be made: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(home, ".aws", "*", "*", ".daypass-*")); len(left) > 0 {
		t.Errorf("files are left: %v", left)
	}
}

// TestProfilesAreWrittenAtOnce: many sign-ins at the same moment all save their profiles, and one
// that cannot lock the file in time fails.
func TestProfilesAreWrittenAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "aws", "config")
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() {
			if err := (Profile{Name: fmt.Sprint("p", i), Session: "s", Region: "r", Endpoint: "e"}).Save(path); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), "login_session = s\n"); n != 50 {
		t.Errorf("%d of 50 profiles are in the file", n)
	}
	unlock, err := lockFile(path, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	if _, err := lockFile(path, 50*time.Millisecond); err == nil || !strings.Contains(err.Error(), ".config.daypass-lock") {
		t.Errorf("a file that another process writes: %v, want what holds it", err)
	}
}

// FuzzProfile: whatever the file contains, every line that is not a key of the sign-in is kept,
// and the profile appears once.
func FuzzProfile(f *testing.F) {
	f.Add("[default]\nregion = x\n\n[profile work]\nregion = y\n")
	f.Add("[profile work\nx\n[[")
	f.Add("  a = b\n[profile work]\n\tregion = z\n")
	f.Fuzz(func(t *testing.T, text string) {
		p := Profile{Name: "work", Session: "arn:new", Region: "r", Endpoint: "e"}
		got := p.edit(text)
		if strings.Count(got, "login_session = arn:new\n") != 1 {
			t.Fatalf("%q became %q", text, got)
		}
		for line := range strings.SplitSeq(text, "\n") {
			if trimmed := strings.TrimSpace(line); trimmed != "" && strings.ContainsRune("[#;", rune(trimmed[0])) && !strings.Contains(got, line) {
				t.Fatalf("%q lost its section or comment %q: %q", text, line, got)
			}
		}
		p.Services = "daypass-work"
		if again := p.edit(got); strings.Count(again, "login_session = arn:new\n") != 1 || len(again) > len(got)+1 {
			t.Fatalf("written again, %q became %q", got, again)
		}
	})
}
