package audit

import "time"

// Stats are counters since Open, and how far the disk is behind.
type Stats struct {
	Lines   int64 // lines written
	Bytes   int64 // bytes written
	Refused int64 // lines that could not be written: acts refused
	Writes  int64 // writes; Lines/Writes is the average number of callers per write
	Syncs   int64 // including failed ones
	Faults  int64 // failed attempts to write, sync or mend
	// Lag is the age of the oldest line that may not be on disk yet.
	Lag time.Duration
}

// Stats returns the counters. It does not wait for the disk.
func (w *Writer) Stats() Stats {
	s := Stats{
		Lines:   w.counters.lines.Load(),
		Bytes:   w.counters.bytes.Load(),
		Refused: w.counters.refused.Load(),
		Writes:  w.counters.writes.Load(),
		Syncs:   w.counters.syncs.Load(),
		Faults:  w.counters.faults.Load(),
	}
	if oldest := w.counters.oldest.Load(); oldest != 0 {
		s.Lag = max(0, w.now().Sub(time.Unix(0, oldest)))
	}
	return s
}

// Err returns why acts are refused at present, nil when the log works. It is for
// readiness checks, and does not wait for the disk.
func (w *Writer) Err() error {
	if err := w.err.Load(); err != nil {
		return *err
	}
	return nil
}

// setOldest notes the time of the first line of unsynced; zero: it is empty.
func (w *Writer) setOldest(t time.Time) {
	if t.IsZero() {
		w.counters.oldest.Store(0)
	} else {
		w.counters.oldest.Store(t.UnixNano())
	}
}
