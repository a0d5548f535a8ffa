package gateway

import (
	"slices"
	"sync"
	"sync/atomic"
)

// exchange knows what a session is at: what the client has asked for, in the order
// of its messages, and how much of it the server has answered. It follows message
// lengths in both directions and looks at nothing but types, and at the status byte
// of ReadyForQuery; what is data to PostgreSQL is never mistaken for a message.
//
// Everything a client asks for is answered by a ReadyForQuery in the end:
//
//	Query, FunctionCall                   one each
//	Parse, Bind, Describe, Execute, Close  the one of the Sync that follows
//	Sync                                   one
//
// A client may send any number of these ahead, so they are queued until answered. A
// run of extended-query messages is one entry: their own answers do not matter.
//
// COPY FROM STDIN is what makes a queue necessary. From CopyInResponse on the server
// takes what the client sent after the COPY for its data, up to CopyDone or CopyFail,
// and ignores each Sync in it; when the COPY fails, the same Sync is answered. Which
// of the two happened shows in what the server says next. Until then such a Sync may or may not be
// answered (maybeSync), and keeps nobody active: a Sync after an error
// runs nothing.
//
// A client that breaks the protocol, by a query in the middle of its COPY or between
// an error and the next Sync, is counted as active for longer than it is, possibly
// until it leaves. It is never counted as idle while the server works for it.
type exchange struct {
	// Only the direction from the client uses these.
	up framer
	_  [48]byte

	// Only the direction from the server.
	down    framer
	talked  bool // since ReadyForQuery the server has answered something
	copying bool // a COPY FROM STDIN is under way

	mu     sync.Mutex // guards what follows
	asked  []request
	owed   int         // how many of asked keep the session active
	maybes int         // asked begins with at least so many doubtful Syncs
	room   [16]request // where asked begins, so that most sessions allocate nothing
	taking bool        // a COPY FROM STDIN takes what the client sends
	lost   bool        // more was asked for than is kept track of

	// state is stateBusy while the server owes an answer, else the status of the last
	// ReadyForQuery. Written under mu.
	state atomic.Uint32
}

// stateBusy stands for: the client has asked for something and has not had the
// ReadyForQuery that ends the answer.
const stateBusy = 0

// request is something that the client has asked for.
type request byte

const (
	query     request = iota // Query, FunctionCall
	extended                 // one or more of Parse, Bind, Describe, Execute, Close
	syncing                  // Sync
	maybeSync                // Sync that is ignored if the COPY it was sent into succeeds
	copyEnd                  // CopyDone or CopyFail, sent before the server asked for data
)

// active reports whether the server works for the session until it has answered this.
func (r request) active() bool { return r != maybeSync && r != copyEnd }

// maxAsked bounds the queue. What PostgreSQL ignores without an answer would fill
// memory otherwise.
const maxAsked = 1 << 16

// fromClient notes what the client sends, before it goes out. terminated reports
// whether Terminate was among it. The error is errMalformed.
func (x *exchange) fromClient(b []byte) (terminated bool, err error) {
	locked := false
	for len(b) > 0 {
		if b = x.up.rows(b, 'd'); len(b) == 0 {
			break
		}
		n, ended, err := x.up.next(b)
		if err != nil {
			if locked {
				x.mu.Unlock()
			}
			return terminated, err
		}
		if !ended {
			break
		}
		b = b[n:]
		switch x.up.kind {
		case 'd', 'H': // CopyData, Flush: nothing is asked for
		case 'X':
			terminated = true
		case 'Q', 'F', 'P', 'B', 'D', 'E', 'C', 'S', 'c', 'f':
			if !locked {
				x.mu.Lock()
				locked = true
			}
			x.askLocked(x.up.kind)
		}
	}
	if locked {
		x.mu.Unlock()
	}
	return terminated, nil
}

func (x *exchange) askLocked(kind byte) {
	what := query
	switch kind {
	case 'S':
		if what = syncing; x.taking {
			what = maybeSync
		}
	case 'c', 'f':
		if x.taking || len(x.asked) == 0 {
			x.taking = false
			return // it ends the COPY, or there is none and it is ignored
		}
		what = copyEnd
	case 'Q', 'F':
		x.taking = false
	default:
		what, x.taking = extended, false
		if n := len(x.asked); n > 0 && x.asked[n-1] == extended {
			return
		}
	}
	switch {
	case x.lost:
		return
	case len(x.asked) >= maxAsked:
		x.lost, x.asked = true, nil
		x.state.Store(stateBusy)
		return
	case len(x.asked) == 0:
		x.asked = x.room[:0]
	}
	x.asked = append(x.asked, what)
	if what.active() {
		x.owed++
		x.state.Store(stateBusy)
	}
}

// fromServer notes what the server sends, before it goes out: a client that answers
// at once is active again. The error is errMalformed.
func (x *exchange) fromServer(b []byte) error {
	for len(b) > 0 {
		if rest := x.down.rows(b, 'D'); len(rest) < len(b) {
			x.talked = true
			if b = rest; len(b) == 0 {
				return nil
			}
		}
		n, ended, err := x.down.next(b)
		if err != nil {
			return err
		}
		if !ended {
			return nil
		}
		switch x.down.kind {
		case 'N', 'A', 'S': // NoticeResponse, NotificationResponse, ParameterStatus: at any time
		case 'Z':
			if x.down.size != 6 {
				return errMalformed
			}
			x.answered(b[n-1])
		case 'G':
			x.talked = true
			x.copyBegins()
		case 'C':
			x.talked = true
			if x.copying {
				x.copied()
			}
		default:
			x.talked = true
		}
		b = b[n:]
	}
	return nil
}

// answered is called for ReadyForQuery. A client can have it called for each of many
// thousand doubtful Syncs, so it does not look at all that is queued.
func (x *exchange) answered(status byte) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.copying, x.taking = false, false
	q := x.asked
	if x.talked {
		// A Sync that was answered would have been so before anything else was.
		q = withoutMaybes(q)
		x.maybes = 0
	}
	x.talked = false
	known := x.maybes
	x.maybes = 0
	for i, what := range q {
		if what == extended || what == copyEnd {
			continue
		}
		for _, gone := range q[:i+1] {
			if gone.active() {
				x.owed--
			}
		}
		if what == maybeSync {
			// It answers this Sync or the first certain one behind it. One of
			// them is left in doubt.
			last := i
			if i == 0 {
				last = known
			}
			for last < len(q) && q[last] == maybeSync {
				last++
			}
			x.maybes = last - i - 1
			if last < len(q) && q[last] == syncing {
				q[last] = maybeSync
				x.owed--
				x.maybes++
			}
		}
		q = q[i+1:]
		break
	}
	for len(q) > 0 && q[0] == copyEnd {
		q = q[1:]
	}
	x.asked = q
	if !x.lost && x.owed == 0 {
		x.state.Store(uint32(status))
	}
}

// withoutMaybes drops the doubtful Syncs that q begins with.
func withoutMaybes(q []request) []request {
	for len(q) > 0 && q[0] == maybeSync {
		q = q[1:]
	}
	return q
}

// copyBegins is called for CopyInResponse. The oldest request is the one that asked
// for it.
func (x *exchange) copyBegins() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.asked, x.maybes = withoutMaybes(x.asked), 0
	x.copying, x.taking = true, true
	for i := 1; i < len(x.asked); i++ {
		if x.asked[i] == syncing {
			x.asked[i] = maybeSync
			x.owed--
			continue
		}
		if x.asked[i] == copyEnd {
			x.asked = slices.Delete(x.asked, i, i+1)
		}
		x.taking = false
		return
	}
}

// copied is called for the CommandComplete of a COPY: each Sync that was sent into it
// has been ignored.
func (x *exchange) copied() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.copying, x.taking = false, false
	x.asked, x.maybes = slices.DeleteFunc(x.asked, func(r request) bool { return r == maybeSync }), 0
}

// ready reports whether the last thing the server sent, to its end, was a
// ReadyForQuery. Only for the direction from the server.
func (x *exchange) ready() bool { return x.down.kind == 'Z' && x.down.boundary() }
