package audit

import (
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// What follows works on the files. The caller holds disk, but for syncer and settle.

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

// whole writes data to the open file, all of it or nothing: what a full disk took of
// a line would be no line for those who read the log, and of an act that is refused.
// Where the rest cannot be taken back it is ended with a newline later.
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

// mend writes to a file that was opened anew after a fault: what may be lost, then
// what the fault kept out, and that durably.
func (w *Writer) mend(now time.Time) error {
	repair := fit(nil, func(o *object) { o.gap(w.refused, w.since, w.fault, *w.origin.Load(), now) })
	if w.lost {
		repair = append(append([]byte(nil), w.unsynced...), repair...)
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
