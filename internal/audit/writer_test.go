package audit_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/daypass/daypass/internal/audit"
)

// disk is the real file system with injected faults. A nil hook does nothing.
type disk struct {
	audit.OSFiles
	mu     sync.Mutex
	onSync func() error
	// onWrite returns how many bytes are written, and the error; -1 means all bytes.
	onWrite func(data []byte) (int, error)
	syncs   atomic.Int64
	writes  atomic.Int64
}

type diskFile struct {
	audit.File
	disk *disk
}

func (d *disk) set(onWrite func([]byte) (int, error), onSync func() error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.onWrite, d.onSync = onWrite, onSync
}

func (d *disk) hooks() (func([]byte) (int, error), func() error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.onWrite, d.onSync
}

func (d *disk) Append(path string) (audit.File, error) {
	f, err := d.OSFiles.Append(path)
	if err != nil {
		return nil, err
	}
	return &diskFile{f, d}, nil
}

func (f *diskFile) Write(data []byte) (int, error) {
	f.disk.writes.Add(1)
	if onWrite, _ := f.disk.hooks(); onWrite != nil {
		if n, err := onWrite(data); n >= 0 {
			written, writeErr := f.File.Write(data[:n])
			return written, errors.Join(err, writeErr)
		}
	}
	return f.File.Write(data)
}

func (f *diskFile) Sync() error {
	f.disk.syncs.Add(1)
	if _, onSync := f.disk.hooks(); onSync != nil {
		if err := onSync(); err != nil {
			return err
		}
	}
	return f.File.Sync()
}

func full(n int) func([]byte) (int, error) {
	return func(data []byte) (int, error) { return min(n, len(data)), syscall.ENOSPC }
}

func openOn(t *testing.T, d *disk, now func() time.Time) (*audit.Writer, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "audit")
	w, err := audit.OpenOn(d, dir, now)
	check(t, err)
	t.Cleanup(func() { _ = w.Close() })
	return w, dir
}

func call(id string) audit.CallRecord { return audit.CallRecord{EventID: id, EventName: "Test"} }

// ids returns the eventIDs of a log in order, with "gap:N" for an AuditGap line about N
// refused acts. A line that is not JSON is "torn".
func ids(t *testing.T, path string) []string {
	t.Helper()
	data, err := os.ReadFile(path)
	check(t, err)
	var list []string
	for line := range strings.Lines(string(data)) {
		switch {
		case !strings.HasPrefix(line, "{") || !strings.HasSuffix(line, "}\n"):
			list = append(list, "torn")
		case strings.Contains(line, `"AuditGap"`):
			_, rest, _ := strings.Cut(line, `"refused":`)
			n, _, _ := strings.Cut(rest, ",")
			list = append(list, "gap:"+n)
		default:
			_, rest, _ := strings.Cut(line, `"eventID":"`)
			id, _, _ := strings.Cut(rest, `"`)
			list = append(list, id)
		}
	}
	return list
}

func wantIDs(t *testing.T, path string, want ...string) {
	t.Helper()
	if got := ids(t, path); !slices.Equal(got, want) {
		t.Errorf("%s has the lines %v, want %v", filepath.Base(path), got, want)
	}
}

func TestFilesArePrivate(t *testing.T) {
	_, dir := openOn(t, &disk{}, fixed)
	for path, want := range map[string]fs.FileMode{dir: 0o700, filepath.Join(dir, "2026-01-01.jsonl"): 0o600} {
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("mode of %s is %v (%v), want %v", path, info.Mode(), err, want)
		}
	}
}

// TestConcurrentCallers: every call that returned nil has exactly one line, however many
// calls were concurrent.
func TestConcurrentCallers(t *testing.T) {
	w, dir := openOn(t, &disk{}, fixed)
	var wg sync.WaitGroup
	var want []string
	for g := range 8 {
		for i := range 200 {
			want = append(want, fmt.Sprintf("%d-%03d", g, i))
		}
		wg.Go(func() {
			for i := range 200 {
				if err := put(w, call(fmt.Sprintf("%d-%03d", g, i))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	got := ids(t, filepath.Join(dir, "2026-01-01.jsonl")) // read before Close: the line is in the file once the call returns
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("%d lines, want each of %d once", len(got), len(want))
	}
	if s := w.Stats(); s.Lines != 1600 || s.Refused != 0 || s.Writes > s.Lines || s.Bytes == 0 {
		t.Errorf("Stats() = %+v", s)
	}
}

// TestCallersShareAWrite: calls that arrive during a write share the next one, and its
// failure.
func TestCallersShareAWrite(t *testing.T) {
	for _, failure := range []error{nil, syscall.EIO} {
		t.Run(fmt.Sprint(failure), func(t *testing.T) {
			d := &disk{}
			w, dir := openOn(t, d, fixed)
			entered, release := make(chan struct{}), make(chan struct{})
			var writes atomic.Int64
			d.set(func([]byte) (int, error) {
				if writes.Add(1) == 1 {
					close(entered)
					<-release
					return -1, nil
				}
				if failure != nil {
					return 0, failure
				}
				return -1, nil
			}, nil)
			results := make(chan error, 11)
			go func() { results <- put(w, call("first")) }()
			<-entered
			for i := range 10 {
				go func() { results <- put(w, call(fmt.Sprint(i))) }()
			}
			for w.Waiting() < 10 {
				runtime.Gosched()
			}
			close(release)
			failed := 0
			for range 11 {
				if err := <-results; err != nil {
					failed++
					if !errors.Is(err, failure) {
						t.Errorf("Call = %v, want %v", err, failure)
					}
				}
			}
			if n := writes.Load(); n != 2 {
				t.Errorf("%d writes, want 2", n)
			}
			if want := map[bool]int{true: 0, false: 10}[failure == nil]; failed != want {
				t.Errorf("%d calls failed, want %d", failed, want)
			}
			d.set(nil, nil)
			check(t, w.Close())
			if n := len(ids(t, filepath.Join(dir, "2026-01-01.jsonl"))); failure == nil && n != 11 {
				t.Errorf("%d lines, want 11", n)
			}
		})
	}
}

func TestSyncedWithinASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{}
		w, _ := openOn(t, d, time.Now)
		before := d.syncs.Load()
		for i := range 100 {
			check(t, put(w, call(fmt.Sprint(i))))
		}
		if n := d.syncs.Load() - before; n != 0 {
			t.Errorf("%d syncs at once, want none", n)
		}
		time.Sleep(100 * time.Millisecond)
		if lag := w.Stats().Lag; lag != 100*time.Millisecond {
			t.Errorf("Lag = %v, want 100ms", lag)
		}
		time.Sleep(900 * time.Millisecond)
		synctest.Wait()
		if n := d.syncs.Load() - before; n != 1 {
			t.Errorf("%d syncs after a second, want one", n)
		}
		if s := w.Stats(); s.Lag != 0 || s.Syncs == 0 {
			t.Errorf("Stats() = %+v, want no lag", s)
		}
		time.Sleep(time.Hour)
		if n := d.syncs.Load() - before; n != 1 {
			t.Errorf("%d syncs with nothing to sync, want one", n)
		}
	})
}

func TestDayRollsOver(t *testing.T) {
	now := time.Date(2026, 1, 1, 23, 59, 59, 999, time.FixedZone("", 0))
	d := &disk{}
	w, dir := openOn(t, d, func() time.Time { return now })
	check(t, put(w, call("a")))
	before := d.syncs.Load()
	now = now.Add(time.Second).In(time.FixedZone("west", -8*3600)) // the 1st there, the 2nd in UTC
	check(t, put(w, call("b")))
	if d.syncs.Load() == before {
		t.Error("the old file was left without a sync")
	}
	now = now.Add(-time.Second) // the clock is set back
	check(t, put(w, call("c")))
	wantIDs(t, filepath.Join(dir, "2026-01-01.jsonl"), "a", "c")
	wantIDs(t, filepath.Join(dir, "2026-01-02.jsonl"), "b")
}

func TestTornLineOfACrash(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "2026-01-01.jsonl")
	check(t, os.WriteFile(path, []byte(`{"eventID":"whole"}`+"\n"+`{"eventID":"cut o`), 0o600))
	for _, id := range []string{"next", "last"} {
		w, err := audit.Open(dir, fixed)
		check(t, err)
		check(t, put(w, call(id)))
		check(t, w.Close())
	}
	wantIDs(t, path, "whole", "torn", "next", "last")
}

// TestDiskFull: the disk fills up in the middle of a line. Every act is refused until there
// is space, and the log then reports how many were refused.
func TestDiskFull(t *testing.T) {
	for _, room := range []int{0, 1, 100} {
		d := &disk{}
		w, dir := openOn(t, d, fixed)
		check(t, put(w, call("before")))
		d.set(full(room), nil)
		for range 3 {
			if err := put(w, call("refused")); !errors.Is(err, syscall.ENOSPC) {
				t.Fatalf("Call on a full disk = %v, want %v", err, syscall.ENOSPC)
			}
		}
		if w.Err() == nil || w.Stats().Refused != 3 {
			t.Errorf("Err() = %v, Stats() = %+v, want the fault and 3 refused", w.Err(), w.Stats())
		}
		d.set(nil, nil)
		check(t, put(w, call("after")))
		if w.Err() != nil {
			t.Errorf("Err() = %v after a line was written", w.Err())
		}
		check(t, w.Close())
		got := ids(t, filepath.Join(dir, "2026-01-01.jsonl"))
		if want := []string{"before", "gap:3", "after"}; !slices.Equal(got, want) {
			t.Errorf("room for %d bytes: lines %v, want %v", room, got, want)
		}
	}
}

// TestSyncFails: after a failed sync the kernel may have dropped lines written since the last
// good one, so they are written again. The next act fails unless all lines are durable.
func TestSyncFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{}
		w, dir := openOn(t, d, time.Now)
		path := filepath.Join(dir, time.Now().UTC().Format(time.DateOnly)+".jsonl")
		check(t, put(w, call("durable")))
		time.Sleep(time.Second)
		synctest.Wait()

		check(t, put(w, call("lost")))
		d.set(nil, func() error { return syscall.EIO })
		time.Sleep(300 * time.Millisecond) // the syncer's turn
		synctest.Wait()
		if !errors.Is(w.Err(), syscall.EIO) {
			t.Fatalf("Err() = %v, want %v", w.Err(), syscall.EIO)
		}
		if err := put(w, call("refused")); !errors.Is(err, syscall.EIO) {
			t.Errorf("Call after a failed sync = %v, want %v", err, syscall.EIO)
		}
		d.set(nil, nil)
		check(t, put(w, call("after")))
		check(t, w.Close())
		// The attempts whose sync failed wrote "lost" twice, and the one that succeeded wrote
		// it once more.
		wantIDs(t, path, "durable", "lost", "lost", "gap:0", "lost", "gap:1", "after")
	})
}

// TestMendsItself: the log recovers without calls, which stop because the service reports
// that it is not ready.
func TestMendsItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{}
		w, dir := openOn(t, d, time.Now)
		d.set(full(10), nil)
		if err := put(w, audit.LogonRecord{}); err == nil {
			t.Fatal("a record on a full disk succeeded")
		}
		time.Sleep(10 * time.Second)
		if w.Err() == nil {
			t.Error("Err() = nil while the disk is full")
		}
		d.set(nil, nil)
		time.Sleep(1100 * time.Millisecond)
		synctest.Wait()
		if err := w.Err(); err != nil {
			t.Errorf("Err() = %v a second after the disk has room", err)
		}
		check(t, w.Close())
		list := ids(t, filepath.Join(dir, time.Now().UTC().Format(time.DateOnly)+".jsonl"))
		if list[len(list)-1] != "gap:1" {
			t.Errorf("lines %v, want a gap of 1 at the end", list)
		}
	})
}

func TestDirectoryRemoved(t *testing.T) {
	w, dir := openOn(t, &disk{}, fixed)
	check(t, put(w, call("gone")))
	check(t, os.RemoveAll(dir))
	for range 2 {
		if err := put(w, audit.SessionRecord{}); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("SessionEnd without a directory = %v, want %v", err, fs.ErrNotExist)
		}
	}
	check(t, os.Mkdir(dir, 0o700))
	check(t, put(w, call("back")))
	wantIDs(t, filepath.Join(dir, "2026-01-01.jsonl"), "gap:2", "back")
}

// TestMovedAway: a log that logrotate moved away is replaced by a new one, with Reopen or
// without.
func TestMovedAway(t *testing.T) {
	w, dir := openOn(t, &disk{}, fixed)
	path := filepath.Join(dir, "2026-01-01.jsonl")
	check(t, put(w, call("a")))
	check(t, os.Rename(path, path+".1"))
	check(t, put(w, call("b")))
	check(t, os.Rename(path, path+".2"))
	check(t, w.Reopen())
	if _, err := os.Stat(path); err != nil {
		t.Errorf("Reopen made no file: %v", err)
	}
	check(t, put(w, call("c")))
	wantIDs(t, path+".1", "a")
	wantIDs(t, path+".2", "b")
	wantIDs(t, path, "c")
}

// TestUnsyncedIsBounded: slow syncs do not make the memory for unsynced lines grow without
// limit.
func TestUnsyncedIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{}
		w, _ := openOn(t, d, time.Now)
		before := d.syncs.Load()
		big := audit.CallRecord{Request: []audit.Field{audit.String("a", strings.Repeat("x", 3900)), audit.String("b", strings.Repeat("x", 3900))}}
		for range 5 << 20 / audit.MaxLine { // all at the same time
			check(t, put(w, big))
		}
		if d.syncs.Load() == before {
			t.Error("5 MB are not synced")
		}
	})
}

func TestClose(t *testing.T) {
	d := &disk{}
	w, dir := openOn(t, d, fixed)
	check(t, put(w, call("a")))
	check(t, w.Close())
	check(t, w.Close())
	if err := put(w, call("b")); !errors.Is(err, audit.ErrClosed) {
		t.Errorf("Call after Close = %v, want %v", err, audit.ErrClosed)
	}
	if err := w.Reopen(); !errors.Is(err, audit.ErrClosed) {
		t.Errorf("Reopen after Close = %v, want %v", err, audit.ErrClosed)
	}
	wantIDs(t, filepath.Join(dir, "2026-01-01.jsonl"), "a")

	w, _ = openOn(t, d, fixed)
	check(t, put(w, call("a")))
	d.set(nil, func() error { return syscall.EIO })
	if err := w.Close(); !errors.Is(err, syscall.EIO) {
		t.Errorf("Close whose sync fails = %v, want %v", err, syscall.EIO)
	}
}

func TestOpenFails(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	check(t, os.WriteFile(path, nil, 0o600))
	if _, err := audit.Open(path, fixed); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("Open where there is a file = %v, want an error with the path", err)
	}
}

func TestLinesAreOneWriteEach(t *testing.T) {
	d := &disk{}
	w, _ := openOn(t, d, fixed)
	var seen [][]byte
	d.set(func(data []byte) (int, error) { seen = append(seen, bytes.Clone(data)); return -1, nil }, nil)
	for i := range 3 {
		check(t, put(w, call(fmt.Sprint(i))))
	}
	if len(seen) != 3 || !bytes.HasSuffix(seen[0], []byte("}\n")) {
		t.Errorf("%d writes for 3 lines, one after the other", len(seen))
	}
}
