// Package audit writes down what happened: one JSON line for each API call, each
// attempt to log on and each end of a session, in the shape of CloudTrail's records
// (https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-event-reference-record-contents.html),
// in a file for each day (UTC). The credential's identifier is the thread through
// all three, the session's through the last two, and each has the principal's ARN.
//
// It is not logging. When a method returns nil, the line is in the file; when it
// returns an error, the act must not happen. The file is synced within a second. A
// write or sync that failed makes every act fail until both work again, which each
// following act and the writer itself try. Then a line AuditGap says how many acts
// were refused in between and why. What a failed sync may have lost is written again
// and may be there twice, with the same eventID. Lines of acts that were refused can
// be there, if others of the same write failed: the log may tell too much, never too
// little.
//
// Callers that come at the same time share one write. No record has a place for a
// secret, and whatever a caller sent is escaped: a line is valid JSON and one line.
package audit

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

// ErrClosed is returned after Close.
var ErrClosed = errors.New("audit log is closed")

const (
	// syncDelay is how long a line may wait for others to be synced with.
	syncDelay = 200 * time.Millisecond
	// retryDelay is how often a log that does not work is tried, if no act does.
	retryDelay = time.Second
	// maxUnsynced bounds the lines kept to be written again if a sync fails. Beyond
	// it writes wait for a sync.
	maxUnsynced = 4 << 20
)

// Writer appends lines to the audit log. Safe for concurrent use.
type Writer struct {
	dir    string
	now    func() time.Time
	files  fileSystem
	origin atomic.Pointer[origin]
	wake   chan struct{} // there is something to sync or to mend
	done   chan struct{} // closed by Close
	idle   chan struct{} // closed when the syncer has returned
	lines  sync.Pool     // of *[]byte

	mu   sync.Mutex
	next *batch // guarded by mu: collects lines while another batch is written

	// disk is held while the files are worked on, but not by the syncer while it
	// waits for a sync. It guards what follows.
	disk     sync.Mutex
	file     file        // nil: not open
	info     fs.FileInfo // of file
	path     string      // of file
	day      int64       // of file, in days since 1970
	written  int64       // bytes of callers' lines written, in all files
	unsynced []byte      // the last of them, since the last sync
	lost     bool        // a sync failed: unsynced has to be written again
	fault    error
	refused  int64 // lines since fault
	since    time.Time
	closed   bool

	counters struct{ lines, bytes, refused, writes, syncs, faults, oldest atomic.Int64 }
	err      atomic.Pointer[error]
}

// batch is the lines of callers that share a write. The first of them writes.
type batch struct {
	data  []byte
	lines int64
	done  chan struct{} // closed when err is set
	err   error
}

// Open opens the log in dir, which is made if it is missing, and today's file. A
// last line that a crash left unfinished is ended with a newline and kept.
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

// SetOrigin sets the account and region of records that name none.
func (w *Writer) SetOrigin(account, region string) { w.origin.Store(&origin{account, region}) }

// Call writes the record of an API call.
func (w *Writer) Call(r CallRecord) error {
	line := w.buffer()
	*line = appendCall((*line)[:0], &r, *w.origin.Load(), w.now())
	return w.put(line)
}

// Logon writes the record of an attempt to log on.
func (w *Writer) Logon(r LogonRecord) error {
	line := w.buffer()
	*line = appendLogon((*line)[:0], &r, *w.origin.Load(), w.now())
	return w.put(line)
}

// SessionEnd writes the record of a session's end. There is no act left to refuse:
// the error is for the log.
func (w *Writer) SessionEnd(r SessionRecord) error {
	line := w.buffer()
	*line = appendSessionEnd((*line)[:0], &r, *w.origin.Load(), w.now())
	return w.put(line)
}

// buffer returns a buffer for a line, which put takes back.
func (w *Writer) buffer() *[]byte {
	if line, ok := w.lines.Get().(*[]byte); ok {
		return line
	}
	line := make([]byte, 0, 2048)
	return &line
}

// put writes a line, together with those that come while it waits for its turn.
func (w *Writer) put(line *[]byte) error {
	w.mu.Lock()
	b := w.next
	first := b == nil
	if first {
		b = &batch{done: make(chan struct{})}
		w.next = b
	}
	b.data = append(b.data, *line...)
	b.lines++
	w.mu.Unlock()
	w.lines.Put(line)
	if !first {
		<-b.done
		return b.err
	}

	w.disk.Lock() // others join the batch while it waits here
	w.mu.Lock()
	w.next = nil
	w.mu.Unlock()
	b.err = w.write(b)
	w.disk.Unlock()
	close(b.done)
	return b.err
}

// write writes a batch. The caller holds disk.
func (w *Writer) write(b *batch) error {
	if w.closed {
		return ErrClosed
	}
	now := w.now()
	err := w.ready(now)
	if err == nil && w.fault != nil {
		err = w.mend(now)
	}
	if err == nil {
		err = w.append(b.data, now)
	}
	if err == nil && len(w.unsynced) > maxUnsynced {
		err = w.sync()
	}
	if err != nil {
		w.refused += b.lines
		w.counters.refused.Add(b.lines)
		w.fail(err, now)
		return fmt.Errorf("writing audit log: %w", err)
	}
	w.counters.lines.Add(b.lines)
	return nil
}

// ready sees to it that today's file is open and still in its place: a log that was
// moved away is left behind for a new one, and a directory that was removed or
// unmounted is an error, not a place to write to unseen.
func (w *Writer) ready(now time.Time) error {
	day := now.Unix() / (24 * 60 * 60)
	if w.file != nil {
		if day == w.day && w.inPlace() {
			return nil
		}
		if err := w.leave(); err != nil {
			return err
		}
	}
	path := filepath.Join(w.dir, now.UTC().Format(time.DateOnly)+".jsonl")
	f, err := w.files.Append(path)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil {
		err = endLastLine(f, info.Size())
	}
	if err == nil {
		err = w.files.SyncDir(w.dir)
	}
	if err != nil {
		_ = f.Close()
		return err
	}
	w.file, w.info, w.path, w.day = f, info, path, day
	return nil
}

func (w *Writer) inPlace() bool {
	there, err := w.files.Stat(w.path)
	return err == nil && os.SameFile(there, w.info)
}

// endLastLine ends a line that a crash or a full disk left unfinished.
func endLastLine(f file, size int64) error {
	if size == 0 {
		return nil
	}
	var last [1]byte
	if _, err := f.ReadAt(last[:], size-1); err != nil {
		return err
	}
	if last[0] == '\n' {
		return nil
	}
	_, err := f.Write([]byte{'\n'})
	return err
}

// append writes data to the open file.
func (w *Writer) append(data []byte, now time.Time) error {
	n, err := w.file.Write(data)
	if err == nil && n < len(data) {
		err = fmt.Errorf("%d of %d bytes written", n, len(data))
	}
	if err != nil {
		return err
	}
	if len(w.unsynced) == 0 {
		w.setOldest(now)
	}
	w.unsynced = append(w.unsynced, data...)
	w.written += int64(len(data))
	w.counters.writes.Add(1)
	w.counters.bytes.Add(int64(len(data)))
	w.signal()
	return nil
}

// mend writes to a file that was opened anew after a fault: what may be lost, then
// what the fault kept out, and that durably.
func (w *Writer) mend(now time.Time) error {
	repair := appendGap(nil, w.refused, w.since, w.fault, *w.origin.Load(), now)
	if w.lost {
		repair = append(append([]byte(nil), w.unsynced...), repair...)
	}
	if n, err := w.file.Write(repair); err != nil {
		return err
	} else if n < len(repair) {
		return fmt.Errorf("%d of %d bytes written", n, len(repair))
	}
	w.written += int64(len(repair))
	w.counters.writes.Add(1)
	w.counters.bytes.Add(int64(len(repair)))
	if err := w.sync(); err != nil {
		return err
	}
	w.counters.lines.Add(1)
	w.fault, w.refused = nil, 0
	w.err.Store(nil)
	return nil
}

// sync waits for the open file to be durable. After an error the kernel may have
// dropped what was not (and will not say so again), so it counts as lost.
func (w *Writer) sync() error {
	w.counters.syncs.Add(1)
	if err := w.file.Sync(); err != nil {
		w.lost = w.lost || len(w.unsynced) > 0
		return fmt.Errorf("syncing: %w", err)
	}
	w.setSynced(len(w.unsynced))
	return nil
}

// setSynced notes that the first n bytes of unsynced are durable.
func (w *Writer) setSynced(n int) {
	w.unsynced = w.unsynced[:copy(w.unsynced, w.unsynced[n:])]
	w.lost = false
	if len(w.unsynced) == 0 {
		w.setOldest(time.Time{})
	} else {
		w.setOldest(w.now())
	}
}

// leave syncs and closes the open file. It does not sync again after a sync that
// failed: the second would succeed without having saved anything.
func (w *Writer) leave() error {
	var err error
	if !w.lost {
		err = w.sync()
	}
	if closeErr := w.file.Close(); err == nil && closeErr != nil {
		err = closeErr
	}
	w.file = nil
	return err
}

// fail begins or continues a fault. The file is opened anew for the next attempt,
// which ends a line of which only a part was written.
func (w *Writer) fail(err error, now time.Time) {
	w.counters.faults.Add(1)
	if w.fault == nil {
		w.since = now
	}
	w.fault = err
	w.err.Store(&err)
	if w.file != nil {
		_ = w.leave()
	}
	w.signal()
}

// syncer syncs what was written, a moment later so that one sync serves many lines,
// and tries to mend a log that does not work.
func (w *Writer) syncer() {
	defer close(w.idle)
	for {
		select {
		case <-w.wake:
		case <-w.done:
			return
		}
		delay := syncDelay
		if w.Err() != nil {
			delay = retryDelay
		}
		timer := time.NewTimer(delay)
		select {
		case <-timer.C:
		case <-w.done:
			timer.Stop()
			return
		}
		w.settle()
	}
}

func (w *Writer) settle() {
	w.disk.Lock()
	defer w.disk.Unlock()
	if w.closed {
		return
	}
	if w.fault != nil {
		w.tryToMend()
		return
	}
	f, mark := w.file, w.written
	if f == nil || len(w.unsynced) == 0 {
		return
	}
	w.counters.syncs.Add(1)
	w.disk.Unlock()
	err := f.Sync() // acts go on meanwhile
	w.disk.Lock()
	if w.file != f {
		return // it was left, and synced before
	}
	if err != nil {
		w.lost = len(w.unsynced) > 0
		w.fail(fmt.Errorf("syncing: %w", err), w.now())
		return
	}
	// Another sync may have been faster; what came after mark is not covered.
	if after := int(w.written - mark); after < len(w.unsynced) {
		w.setSynced(len(w.unsynced) - after)
	}
}

func (w *Writer) tryToMend() {
	now := w.now()
	err := w.ready(now)
	if err == nil {
		err = w.mend(now)
	}
	if err != nil {
		w.fail(err, now)
	}
}

func (w *Writer) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// Reopen closes the file and opens it again, after it was moved away (logrotate).
// The writer also notices by itself, with the next line.
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

// Close syncs and closes the log. Every act that follows gets ErrClosed.
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
