// Package audit writes down what happened: one JSON line for each API call, each
// attempt to log on and each end of a session, in the shape of CloudTrail's records
// (https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-event-reference-record-contents.html),
// in a file for each day (UTC). All three have the principal's ARN and the credential's
// identifier; the last two also have the session's.
//
// It is not logging. When a method returns nil, the line is in the file; when it
// returns an error, the act must not happen. The file is synced within a second. After
// a failed write or sync every act fails until both work again; each following act
// tries, and so does the writer itself. Then a line AuditGap has the number of refused
// acts and the reason. Lines that a failed sync may have lost are written again and may
// be duplicates, with the same eventID. Lines of refused acts can appear if other lines
// of the same write failed: the log may have too much, never too little. A partial line
// is completed with a newline and kept after a crash, and removed after a write to a
// full disk.
//
// Concurrent callers share one write. No record has a field for a secret, and
// everything that a caller sent is escaped: a line is valid JSON, on one line, with at
// most MaxLine bytes. A record that is too long is cut, and its line says so.
package audit

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// ErrClosed is returned after Close.
var ErrClosed = errors.New("audit log is closed")

const (
	// syncDelay is how long a line may wait so that one sync serves several.
	syncDelay = 200 * time.Millisecond
	// retryDelay is how often the writer retries a log that does not work, if no act does.
	retryDelay = time.Second
	// maxUnsynced limits the lines kept for writing again if a sync fails. Beyond that,
	// writes wait for a sync.
	maxUnsynced = 4 << 20
)

// Writer appends lines to the audit log. Safe for concurrent use.
type Writer struct {
	dir    string
	now    func() time.Time
	files  fileSystem
	origin atomic.Pointer[origin]
	wake   chan struct{} // wakes syncer
	done   chan struct{} // closed by Close
	idle   chan struct{} // closed when the syncer has returned
	lines  sync.Pool     // of *[]byte

	mu   sync.Mutex
	next *batch // guarded by mu: collects lines while another batch is written

	// disk is locked while the files are used, except by the syncer during a sync. It
	// guards the fields below.
	disk     sync.Mutex
	file     file        // nil: not open
	info     fs.FileInfo // of file
	path     string      // of file
	day      int64       // of file, in days since 1970
	written  int64       // bytes of callers' lines written, in all files
	unsynced []byte      // the last bytes of them, written since the last sync
	lost     bool        // a sync failed: write unsynced again
	fault    error
	refused  int64 // lines refused since fault
	since    time.Time
	closed   bool

	counters struct{ lines, bytes, refused, writes, syncs, faults, oldest atomic.Int64 }
	err      atomic.Pointer[error]
}

// batch has the lines of callers that share a write. The first caller writes.
type batch struct {
	data  []byte // in the buffer of the first caller's line
	lines int64
	done  chan struct{} // closed when err is set; nil: no one waits
	err   error
}

// Open opens the log in dir, which is created if it is missing, and today's file. If a crash
// left the last line unfinished, it is ended with a newline and kept.
func Open(dir string, now func() time.Time) (*Writer, error) {
	return open(osFiles{}, dir, now)
}

func open(files fileSystem, dir string, now func() time.Time) (*Writer, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("opening audit log: %w", err)
	}
	w := &Writer{
		dir: dir, now: now, files: files,
		wake: make(chan struct{}, 1), done: make(chan struct{}), idle: make(chan struct{}),
	}
	w.origin.Store(&origin{})
	if err := w.ready(now()); err != nil {
		return nil, fmt.Errorf("opening audit log: %w", err)
	}
	go w.syncer()
	return w, nil
}

// SetOrigin sets the account and region for records that name none.
func (w *Writer) SetOrigin(account, region string) { w.origin.Store(&origin{account, region}) }

// Call writes the record of an API call. It returns the length of the line, whether it was
// written or not.
func (w *Writer) Call(r *CallRecord) (size int, err error) {
	line := w.buffer()
	*line = fit((*line)[:0], func(o *object) { o.call(r, *w.origin.Load(), w.now()) })
	size = len(*line)
	return size, w.put(line)
}

// Logon writes the record of an attempt to log on. It returns what Call does.
func (w *Writer) Logon(r *LogonRecord) (size int, err error) {
	line := w.buffer()
	*line = fit((*line)[:0], func(o *object) { o.logon(r, *w.origin.Load(), w.now()) })
	size = len(*line)
	return size, w.put(line)
}

// SessionEnd writes the record of a session's end. It returns what Call does. There is nothing
// left to refuse, so callers log the error.
func (w *Writer) SessionEnd(r *SessionRecord) (size int, err error) {
	line := w.buffer()
	*line = fit((*line)[:0], func(o *object) { o.sessionEnd(r, *w.origin.Load(), w.now()) })
	size = len(*line)
	return size, w.put(line)
}

// Size returns the length of the record's line, for limits. It needs no Writer, so account and region
// count with their maximum length if the record has none.
func (r *CallRecord) Size() int {
	known := *r
	known.EventID = or(r.EventID, anyID)
	return size(func(o *object) { o.call(&known, longest, anyTime) })
}

// Size is for a LogonRecord what it is for a CallRecord.
func (r *LogonRecord) Size() int {
	known := *r
	known.EventID = or(r.EventID, anyID)
	return size(func(o *object) { o.logon(&known, longest, anyTime) })
}

// Placeholders that size uses for missing values. They do not change.
var (
	longest = origin{account: "123456789012", region: strings.Repeat("x", 32)}
	anyTime = time.Unix(0, 0)
	anyID   = strings.Repeat("0", 36)
)

// sizing are buffers for size, of *[]byte.
var sizing = sync.Pool{New: func() any { return new([]byte) }}

func size(encode func(*object)) int {
	buffer := sizing.Get().(*[]byte)
	defer sizing.Put(buffer)
	*buffer = fit((*buffer)[:0], encode)
	return len(*buffer)
}

// buffer returns a buffer for a line. put takes it back.
func (w *Writer) buffer() *[]byte {
	if line, ok := w.lines.Get().(*[]byte); ok {
		return line
	}
	line := make([]byte, 0, 2048)
	return &line
}

// maxKept is the size of a buffer that is kept for the next line.
const maxKept = 2 * MaxLine

// put writes a line, together with other callers' lines that arrive while it waits.
func (w *Writer) put(line *[]byte) error {
	w.mu.Lock()
	if b := w.next; b != nil {
		b.data = append(b.data, *line...)
		b.lines++
		if b.done == nil {
			b.done = make(chan struct{})
		}
		done := b.done
		w.mu.Unlock()
		w.lines.Put(line)
		<-done
		return b.err
	}
	b := &batch{data: *line, lines: 1}
	w.next = b
	w.mu.Unlock()

	// Let other goroutines run first. They join the batch if they are about to write: under
	// load, one write serves many lines, and otherwise this costs nothing.
	runtime.Gosched()
	w.disk.Lock() // others also join while this waits
	w.mu.Lock()
	w.next = nil
	w.mu.Unlock()
	err := w.write(b)
	w.disk.Unlock()
	if b.done != nil {
		b.err = err
		close(b.done)
	}
	if cap(b.data) <= maxKept {
		*line = b.data
		w.lines.Put(line)
	}
	return err
}

func (w *Writer) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// Reopen closes the file and opens it again after logrotate moved it. The writer also notices
// the move itself, at the next line.
func (w *Writer) Reopen() error {
	w.disk.Lock()
	defer w.disk.Unlock()
	if w.closed {
		return ErrClosed
	}
	now := w.now()
	var err error
	if w.file != nil {
		err = w.leave()
	}
	if err == nil {
		err = w.ready(now)
	}
	if err != nil {
		w.fail(err, now)
		return fmt.Errorf("reopening audit log: %w", err)
	}
	return nil
}

// Close syncs and closes the log. Every later act gets ErrClosed.
func (w *Writer) Close() error {
	w.disk.Lock()
	if w.closed {
		w.disk.Unlock()
		return nil
	}
	if w.fault != nil {
		w.tryToMend()
	}
	w.closed = true
	close(w.done)
	err := w.fault
	if w.file != nil {
		if leaveErr := w.leave(); err == nil {
			err = leaveErr
		}
	}
	w.disk.Unlock()
	<-w.idle
	if err != nil {
		return fmt.Errorf("closing audit log: %w", err)
	}
	return nil
}
