//go:build unix

package filemode_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/daypass/daypass/internal/filemode"
)

// TestCheck goes through modes of a file of one's own, for root as for anyone else.
func TestCheck(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		mode            os.FileMode
		private, public string // what the fault says; empty: none
		mendable        bool
	}{
		{mode: 0o600}, {mode: 0o400}, {mode: 0o700},
		{mode: 0o640, private: "read by its group (mode 0640): run chmod go-rwx", mendable: true},
		{mode: 0o660, private: "changed by its group", public: "changed by its group (mode 0660): run chmod go-w", mendable: true},
		{mode: 0o644, private: "read by others"},
		{mode: 0o604, private: "read by others"},
		{mode: 0o602, private: "changed by others", public: "changed by others"},
		{mode: 0o666, private: "changed by others", public: "changed by others"},
		{mode: 0o710, private: "read by its group", mendable: true},
		{mode: 0o601, private: "read by others"},
	} {
		if err := os.Chmod(path, row.mode); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		for kind, want := range map[filemode.Kind]string{filemode.Private: row.private, filemode.Public: row.public} {
			fault := filemode.Check(path, info, kind)
			switch {
			case want == "":
				if fault != nil {
					t.Errorf("%04o, kind %d: %v, want none", row.mode, kind, fault)
				}
			case fault == nil || !strings.Contains(fault.Error(), want) || !strings.HasPrefix(fault.Error(), path) || fault.Mendable != row.mendable:
				t.Errorf("%04o, kind %d: %+v, want %q, mendable %v", row.mode, kind, fault, want, row.mendable)
			}
		}
	}
}

// TestRootForAGroup is the exception: what root owns, for a group of this process.
// The process that looks is this test, run again as another account.
func TestRootForAGroup(t *testing.T) {
	if path := os.Getenv("FILEMODE_LOOK"); path != "" {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		fault := filemode.Check(path, info, filemode.Private)
		if want := os.Getenv("FILEMODE_WANT"); (fault == nil) != (want == "") || fault != nil && (!strings.Contains(fault.Error(), want) || fault.Mendable) {
			t.Errorf("as uid %d: %v, want %q", os.Geteuid(), fault, want)
		}
		return
	}
	if os.Geteuid() != 0 {
		t.Log("NOT CHECKED: it takes root to give a file to another account")
		return
	}
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("/tmp", "filemode")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	copied := filepath.Join(dir, "look")
	data, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(copied, data, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{dir, copied} { // the umask may be strict
		if err := os.Chmod(name, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "secret")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	const us, group, another = 65532, 2000, 3000
	for _, row := range []struct {
		uid, gid int
		mode     os.FileMode
		want     string
	}{
		{0, group, 0o640, ""}, {0, group, 0o440, ""}, {0, group, 0o660, ""}, // fsGroup
		{0, group, 0o644, "read by others"},
		{0, another, 0o640, "read by its group"},
		{1000, group, 0o640, "read by its group"},
		{0, 0, 0o440, ""}, // a credential of systemd
		{0, 0, 0o640, "read by its group"}, {0, 0, 0o444, "read by others"}, {0, 0, 0o460, "changed by its group"},
		{1000, 0, 0o440, "read by its group"}, {0, another, 0o440, "read by its group"},
	} {
		if err := os.Chown(path, row.uid, row.gid); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, row.mode); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(copied, "-test.run", "^TestRootForAGroup$")
		cmd.Dir = dir
		cmd.Env = []string{"FILEMODE_LOOK=" + path, "FILEMODE_WANT=" + row.want}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: us, Gid: us, Groups: []uint32{group}}}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%d:%d %04o: %v\n%s", row.uid, row.gid, row.mode, err, out)
		}
	}
}
