package devserver

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"testing"
	"time"
)

// TestSweeps leaves a directory behind as a killed run does.
func TestSweeps(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	held, err := makeDirs("")
	if err != nil {
		t.Fatal(err)
	}
	dead, err := makeDirs("")
	if err != nil {
		t.Fatal(err)
	}
	dead.lock.Close()
	old := time.Now().Add(-time.Hour)
	for _, dir := range []string{held.root, dead.root} {
		if err := os.Chtimes(dir, old, old); err != nil {
			t.Fatal(err)
		}
	}
	next, err := makeDirs("")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dead.root); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory of a dead run is still there: %v", err)
	}
	for _, d := range []dirs{held, next} {
		if _, err := os.Stat(d.root); err != nil {
			t.Errorf("the directory of a running dev is gone: %v", err)
		}
		if err := d.close(); err != nil {
			t.Error(err)
		}
	}
	if left, err := os.ReadDir(temp); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestListen(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	var stderr bytes.Buffer
	d := &dev{opts: Options{Stderr: &stderr}}
	free, err := d.listen("API", Address{Listen: taken.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	defer free.Close()
	if want := fmt.Sprintf("%s is taken: the API listens on %s\n", taken.Addr(), free.Addr()); stderr.String() != want {
		t.Errorf("note = %q, want %q", stderr.String(), want)
	}
	for _, address := range []string{taken.Addr().String(), "0.0.0.0:0", "nonsense"} {
		if l, err := d.listen("API", Address{Listen: address, Strict: true}); err == nil {
			l.Close()
			t.Errorf("listening on %s, asked for by name, succeeded on %s", address, l.Addr())
		}
	}
}
