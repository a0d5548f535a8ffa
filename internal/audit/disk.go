package audit

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// These methods work on the files. All but syncer and settle need the lock disk.

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

// ready makes sure that today's file is open and still in its directory. If the file was
// moved away, a new one is begun. If the directory was removed or unmounted, that is an
// error: lines written there would be lost.
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
	if err := w.whole(data); err != nil {
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

// whole writes all of data to the open file, or none of it. A partial line on a full disk
// would look like a damaged record, of an act that was refused. If a partial line cannot be
// removed, the next write ends it with a newline.
func (w *Writer) whole(data []byte) error {
	n, err := w.file.Write(data)
	if err == nil && n < len(data) {
		err = fmt.Errorf("%d of %d bytes written", n, len(data))
	}
	if err == nil || n == 0 {
		return err
	}
	if info, statErr := w.file.Stat(); statErr == nil && info.Size() >= int64(n) {
		_ = w.file.Truncate(info.Size() - int64(n))
	}
	return err
}

// mend writes to a file that was opened again after a fault: first the lines that may be
// lost, then the line about the gap. It syncs them.
func (w *Writer) mend(now time.Time) error {
	repair := fit(nil, func(o *object) { o.gap(w.refused, w.since, w.fault, *w.origin.Load(), now) })
	if w.lost {
		repair = slices.Concat(w.unsynced, repair)
	}
	if err := w.whole(repair); err != nil {
		return err
	}
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

// sync syncs the open file. After an error the kernel may have dropped the unsynced
// data and does not report that again, so the data counts as lost.
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

// fail begins or continues a fault. The next attempt opens the file again and ends a partial
// line.
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

// syncer syncs the file a moment after a write, so that one sync serves many lines, and
// tries to mend the log after a fault.
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
		select {
		case <-time.After(delay):
		case <-w.done:
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
	err := f.Sync() // without the lock, so that acts can continue
	w.disk.Lock()
	if w.file != f {
		return // the file was closed, and synced before that
	}
	if err != nil {
		w.lost = len(w.unsynced) > 0
		w.fail(fmt.Errorf("syncing: %w", err), w.now())
		return
	}
	// Another sync may have ended first. This one does not include bytes written after mark.
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
