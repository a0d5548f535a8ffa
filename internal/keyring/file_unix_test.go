//go:build unix

package keyring_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/daypass/daypass/internal/keyring"
)

func newFile(t *testing.T) (*keyring.File, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keyring.json")
	f, err := keyring.OpenFile(path, epoch)
	if err != nil {
		t.Fatal(err)
	}
	return f, path
}

func rotate(k *keyring.Keyring) *keyring.Keyring { return k.Rotate(epoch, epoch) }

func onlyFile(t *testing.T, path string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 || entries[0].Name() != filepath.Base(path) {
		t.Errorf("the directory holds %v, %v, want the keyring alone", entries, err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("mode of the keyring: %v, %v, want 0600", info.Mode(), err)
	}
}

func TestOpenFileMakesOne(t *testing.T) {
	if _, err := keyring.LoadFile(filepath.Join(t.TempDir(), "keyring.json")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("LoadFile of no file = %v, want %v", err, fs.ErrNotExist)
	}
	f, path := newFile(t)
	onlyFile(t, path)
	again, err := keyring.OpenFile(path, epoch.Add(time.Hour))
	if err != nil || !bytes.Equal(again.Current().Marshal(), f.Current().Marshal()) {
		t.Errorf("OpenFile of an existing file made another keyring (%v)", err)
	}
}

func TestOpenFileAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keyring.json")
	var wg sync.WaitGroup
	made := make([][]byte, 20)
	for i := range made {
		wg.Go(func() {
			f, err := keyring.OpenFile(path, epoch)
			if err != nil {
				t.Error(err)
				return
			}
			made[i] = f.Current().Marshal()
		})
	}
	wg.Wait()
	for _, data := range made {
		if !bytes.Equal(data, made[0]) {
			t.Fatal("two of them have different keyrings")
		}
	}
	onlyFile(t, path)
}

// No update is lost if several users of the file make many at the same time.
func TestUpdatesExcludeOneAnother(t *testing.T) {
	first, path := newFile(t)
	var wg sync.WaitGroup
	for range 4 {
		f, err := keyring.LoadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			for range 5 {
				if _, err := f.Update(rotate); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if changed, err := first.Reload(); !changed || err != nil {
		t.Fatalf("Reload = %t, %v, want a change", changed, err)
	}
	if got := len(first.Current().Keys(epoch)); got != 2*21+1 {
		t.Errorf("%d keys in the file, want %d", got, 2*21+1)
	}
	onlyFile(t, path)
}

func TestReload(t *testing.T) {
	server, path := newFile(t)
	command, err := keyring.LoadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if changed, err := server.Reload(); changed || err != nil {
		t.Errorf("Reload of what is in force = %t, %v", changed, err)
	}
	next, err := command.Update(rotate)
	if err != nil || command.Current() != next {
		t.Fatalf("Update = %v, want the new keyring in force", err)
	}
	if changed, err := command.Reload(); changed || err != nil {
		t.Errorf("Reload after an own Update = %t, %v, want nothing new", changed, err)
	}
	if changed, err := server.Reload(); !changed || err != nil {
		t.Errorf("Reload after another's Update = %t, %v, want a change", changed, err)
	}
	if !bytes.Equal(server.Current().Marshal(), next.Marshal()) {
		t.Error("Reload brought something else into force")
	}
}

// Whatever happens to the file, the keyring in force stays, Reload returns the error once, and
// works again when the file is repaired.
func TestReloadRefuses(t *testing.T) {
	for name, row := range map[string]struct {
		damage func(t *testing.T, path string, data []byte)
		want   string
	}{
		"truncated": {func(t *testing.T, path string, data []byte) { write(t, path, data[:len(data)/2]) }, "ends in the middle"},
		"empty":     {func(t *testing.T, path string, _ []byte) { write(t, path, nil) }, "ends in the middle"},
		"zeroes":    {func(t *testing.T, path string, data []byte) { write(t, path, make([]byte, len(data))) }, "not JSON at byte 1"},
		"removed":   {func(t *testing.T, path string, _ []byte) { check(t, os.Remove(path)) }, "no such file"},
		"a directory": {func(t *testing.T, path string, _ []byte) {
			check(t, os.Remove(path))
			check(t, os.Mkdir(path, 0o700))
		}, "not a regular file"},
		"a pipe": {func(t *testing.T, path string, _ []byte) {
			check(t, os.Remove(path))
			check(t, syscall.Mkfifo(path, 0o600))
		}, "not a regular file"},
		"readable by the group": {func(t *testing.T, path string, _ []byte) { check(t, os.Chmod(path, 0o640)) }, "chmod go-rwx"},
		"readable by all":       {func(t *testing.T, path string, _ []byte) { check(t, os.Chmod(path, 0o604)) }, "chmod go-rwx"},
		"huge":                  {func(t *testing.T, path string, _ []byte) { check(t, os.Truncate(path, 1<<21)) }, "is larger than"},
	} {
		t.Run(name, func(t *testing.T) {
			f, path := newFile(t)
			before := f.Current()
			data, err := os.ReadFile(path)
			check(t, err)
			row.damage(t, path, data)

			changed, err := f.Reload()
			if changed || err == nil || !strings.Contains(err.Error(), row.want) || !strings.Contains(err.Error(), path) {
				t.Fatalf("Reload = %t, %v, want an error with %q and the path", changed, err, row.want)
			}
			if f.Current() != before {
				t.Error("the keyring in force changed")
			}
			if changed, err := f.Reload(); changed || err != nil {
				t.Errorf("second Reload = %t, %v, want silence", changed, err)
			}
			if f.Err() == nil {
				t.Error("Err() = nil while the file is unusable")
			}
			if _, err := f.Update(rotate); err == nil {
				t.Error("Update of an unusable file succeeded")
			}
			if _, err := keyring.OpenFile(path, epoch); err == nil && name != "removed" {
				t.Error("OpenFile of an unusable file succeeded")
			}

			check(t, os.RemoveAll(path))
			write(t, path, data)
			if _, err := f.Reload(); err != nil || f.Err() != nil {
				t.Errorf("Reload of the mended file = %v, Err() = %v", err, f.Err())
			}
		})
	}
}

// After a rotation by root the server's user can still read the file. Only a test run by root can
// show this, because other users can only have files of their own.
func TestUpdateKeepsOwner(t *testing.T) {
	f, path := newFile(t)
	owner := os.Getuid()
	if owner == 0 {
		owner = 65534
		check(t, os.Chown(path, owner, owner))
	}
	_, err := f.Update(rotate)
	check(t, err)
	info, err := os.Stat(path)
	check(t, err)
	if got := int(info.Sys().(*syscall.Stat_t).Uid); got != owner {
		t.Errorf("the file belongs to user %d after Update, want %d", got, owner)
	}
}

// A crash in the middle of an update left a file behind.
func TestUpdateAfterCrash(t *testing.T) {
	f, path := newFile(t)
	write(t, path+".new", []byte(`{"version": 1, "cred`))
	if _, err := f.Update(rotate); err != nil {
		t.Fatal(err)
	}
	onlyFile(t, path)
}

func TestUpdateFails(t *testing.T) {
	f, path := newFile(t)
	before := f.Current()
	check(t, os.Mkdir(path+".new", 0o700))
	write(t, filepath.Join(path+".new", "x"), nil) // it cannot be removed
	if _, err := f.Update(rotate); err == nil {
		t.Error("Update succeeded")
	}
	if changed, err := f.Reload(); changed || err != nil || f.Current() != before {
		t.Errorf("after a failed Update: Reload = %t, %v, want no change", changed, err)
	}
}

func TestParseRefuses(t *testing.T) {
	good := string(keyring.New(epoch).Marshal())
	var file map[string]any
	check(t, json.Unmarshal([]byte(good), &file))
	secret := file["upstream"].(map[string]any)["secret"].(string)
	id := file["upstream"].(map[string]any)["id"].(string)
	replace := func(old, new string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("%q is not in the file", old)
		}
		return strings.Replace(good, old, new, 1)
	}
	for name, row := range map[string]struct{ text, want string }{
		"nothing":             {"", "ends in the middle"},
		"null":                {"null", "version 0"},
		"a list":              {"[]", "wrong type"},
		"no version":          {replace(`"version": 1,`, ""), "version 0"},
		"a later version":     {replace(`"version": 1`, `"version": 2`), "version 2"},
		"a version in quotes": {replace(`"version": 1`, `"version": "1"`), "wrong type"},
		"trailing text":       {good + "{}", "not JSON"},
		"an unknown name":     {replace(`"version": 1,`, `"version": 1, "comment": "",`), "unknown"},
		"a repeated name":     {replace(`"version": 1,`, `"version": 1, "version": 1,`), "repeated"},
		"a name in capitals":  {replace(`"upstream"`, `"Upstream"`), "otherwise"},
		"another order":       {replace(`"version": 1,`, "")[:1] + strings.TrimSuffix(strings.TrimSpace(replace(`"version": 1,`, "")[1:]), "}") + `,"version":1}`, "otherwise"},
		"escaped letters":     {replace(`"id": "`+id, `"id": "\u00`+hexOf(id[0])+id[1:]), "otherwise"},
		"no credential keys":  {`{"version":1,"credential":[],"session":[],"upstream":{}}`, "no credential key"},
		"a damaged secret":    {replace(secret, flipLetter(secret)), "damaged"},
		"a damaged id":        {replace(id, strings.Repeat("0", 16)), "damaged"},
		"a short secret":      {replace(secret, secret[:40]), "32 bytes"},
		"a padded secret":     {replace(secret, secret+"="), "32 bytes"},
		"a broken secret":     {replace(secret, secret[:20]+`\n`+secret[20:]), "otherwise"},
		"not a time":          {replace("2026-01-01T00:00:00Z", "yesterday"), "not a time"},
		"fractional seconds":  {replace("2026-01-01T00:00:00Z", "2026-01-01T00:00:00.5Z"), "otherwise"},
		"another zone":        {replace("2026-01-01T00:00:00Z", "2026-01-01T01:00:00+01:00"), "otherwise"},
	} {
		_, err := keyring.Parse([]byte(row.text))
		if err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: Parse = %v, want an error with %q", name, err, row.want)
		}
		if err != nil && strings.Contains(err.Error(), secret[:8]) {
			t.Errorf("%s: the error quotes a secret: %v", name, err)
		}
	}

	twice := keyring.New(epoch).Rotate(epoch.Add(time.Hour), epoch.Add(time.Hour)).Marshal()
	var keys struct {
		Credential []json.RawMessage `json:"credential"`
	}
	check(t, json.Unmarshal(twice, &keys))
	a, b := string(keys.Credential[0]), string(keys.Credential[1])
	swapped := strings.NewReplacer(a, b, b, a).Replace(string(twice))
	if _, err := keyring.Parse([]byte(swapped)); err == nil || !strings.Contains(err.Error(), "ahead of it") {
		t.Errorf("keys out of order: Parse = %v", err)
	}
	if _, err := keyring.Parse([]byte(strings.Replace(string(twice), b, a, 1))); err == nil || !strings.Contains(err.Error(), "twice") {
		t.Errorf("a key twice: Parse = %v", err)
	}
}

func hexOf(c byte) string { return string("0123456789abcdef"[c>>4]) + string("0123456789abcdef"[c&15]) }

func flipLetter(s string) string {
	if s[0] == 'A' {
		return "B" + s[1:]
	}
	return "A" + s[1:]
}

func FuzzParse(f *testing.F) {
	k := keyring.New(epoch)
	f.Add(k.Marshal())
	f.Add(k.Rotate(epoch, epoch.Add(time.Hour)).Marshal())
	f.Add([]byte(`{"version":1,"credential":[],"session":[],"upstream":{}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		k, err := keyring.Parse(data)
		if err != nil {
			return
		}
		var got, want bytes.Buffer
		check(t, json.Compact(&got, data))
		check(t, json.Compact(&want, k.Marshal()))
		if got.String() != want.String() {
			t.Errorf("Parse took what Marshal does not write")
		}
	})
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	check(t, os.WriteFile(path, data, 0o600))
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
