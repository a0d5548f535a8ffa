package pgwire

import "slices"

// Exchange tracks what a session is doing: what the client has asked for, in the
// order of its messages, and how much of it the server has answered. It follows the
// lengths of messages in both directions and reads only their types, and the status
// byte of ReadyForQuery. Data that looks like a message is never taken for one.
//
// Every request of a client is answered by a ReadyForQuery in the end:
//
//	Query, FunctionCall                   one each
//	Parse, Bind, Describe, Execute, Close  the one of the Sync that follows
//	Sync                                   one
//
// A client may send any number of requests ahead, so they are queued until answered.
// A run of extended-query messages is one entry, because their own answers do not
// matter here.
//
// COPY FROM STDIN is the reason for the queue. From CopyInResponse on, the server
// takes everything that the client sent after the COPY as its data, up to CopyDone or
// CopyFail, and ignores each Sync in it. But if the COPY fails, the same Sync is
// answered. The server's next message shows which of the two happened. Until then such
// a Sync is in doubt (maybeSync). It does not make the session busy: a Sync after an
// error runs nothing.
//
// A client that breaks the protocol, by a query in the middle of its COPY or between
// an error and the next Sync, counts as busy for longer than it is, possibly until it
// leaves. It never counts as idle while the server works for it.
//
// Make one with NewExchange. It is not safe for concurrent use: the session's lock
// guards it.
type Exchange struct {
	up, down framer

	talked  bool // since ReadyForQuery the server has answered something
	copying bool // a COPY FROM STDIN is running

	asked  []request
	owed   int         // how many of asked keep the session busy
	maybes int         // asked begins with at least this many Syncs in doubt
	room   [16]request // where asked begins, so that most sessions allocate nothing
	taking bool        // a COPY FROM STDIN takes what the client sends
	lost   bool        // more was asked for than is tracked

	status byte // of the last ReadyForQuery, or Busy
}

// NewExchange tracks a session that has just sent ReadyForQuery with a status.
func NewExchange(status byte) Exchange { return Exchange{status: status} }

// Busy is the Status of a session whose client has asked for something and has not yet
// received the ReadyForQuery at the end of the answer.
const Busy = 0

// Status returns Busy while the server owes an answer, else the status of the last
// ReadyForQuery.
func (x *Exchange) Status() byte { return x.status }

// request is something that the client has asked for.
type request byte

const (
	query     request = iota // Query, FunctionCall
	extended                 // one or more of Parse, Bind, Describe, Execute, Close
	syncing                  // Sync
	maybeSync                // Sync in doubt: ignored if the COPY it was sent into succeeds
	copyEnd                  // CopyDone or CopyFail, sent before the server asked for data
)

// keepsBusy reports whether the session is busy until the server has answered this.
func (r request) keepsBusy() bool { return r != maybeSync && r != copyEnd }

// maxAsked bounds the queue: a client could fill memory with messages that PostgreSQL
// ignores without an answer.
const maxAsked = 1 << 16

// FromClient notes bytes from the client, before they are passed on. terminated reports
// whether Terminate was among them. The error is ErrMalformed.
func (x *Exchange) FromClient(b []byte) (terminated bool, err error) {
	for len(b) > 0 {
		if b = x.up.rows(b, MsgCopyData); len(b) == 0 {
			break
		}
		n, ended, err := x.up.next(b)
		if err != nil {
			return terminated, err
		}
		if !ended {
			break
		}
		b = b[n:]
		switch x.up.kind {
		case MsgCopyData, MsgFlush: // they ask for nothing
		case MsgTerminate:
			terminated = true
		case MsgQuery, MsgFunctionCall, MsgParse, MsgBind, MsgDescribe, MsgExecute, MsgClose, MsgSync, MsgCopyDone, MsgCopyFail:
			x.ask(x.up.kind)
		}
	}
	return terminated, nil
}

func (x *Exchange) ask(kind byte) {
	what := query
	switch kind {
	case MsgSync:
		what = syncing
		if x.taking {
			what = maybeSync
		}
	case MsgCopyDone, MsgCopyFail:
		if x.taking || len(x.asked) == 0 {
			x.taking = false
			return // it ends the COPY; without one it is ignored
		}
		what = copyEnd
	case MsgQuery, MsgFunctionCall:
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
		x.status = Busy
		return
	case len(x.asked) == 0:
		x.asked = x.room[:0]
	}
	x.asked = append(x.asked, what)
	if what.keepsBusy() {
		x.owed++
		x.status = Busy
	}
}

// FromServer notes bytes from the server, before they are passed on: the client's
// answer may arrive as soon as they are. The error is ErrMalformed.
func (x *Exchange) FromServer(b []byte) error {
	for len(b) > 0 {
		if rest := x.down.rows(b, MsgDataRow); len(rest) < len(b) {
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
		case MsgNoticeResponse, MsgNotificationResponse, MsgParameterStatus: // sent at any time
		case MsgReadyForQuery:
			if x.down.size != 6 {
				return ErrMalformed
			}
			x.answered(b[n-1])
		case MsgCopyInResponse:
			x.talked = true
			x.copyBegins()
		case MsgCommandComplete:
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

// answered is called for ReadyForQuery. A client can cause a call for each of many
// thousand Syncs in doubt, so one call must not walk the whole queue.
func (x *Exchange) answered(status byte) {
	x.copying, x.taking = false, false
	q := x.asked
	if x.talked {
		// The server would have answered such a Sync before it sent anything else.
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
			if gone.keepsBusy() {
				x.owed--
			}
		}
		if what == maybeSync {
			// This ReadyForQuery answers either this Sync, which is in doubt, or the next
			// one that is not. There is no telling which, so the other one is in doubt now.
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
		x.status = status
	}
}

// withoutMaybes removes the requests of kind maybeSync from the beginning of q.
func withoutMaybes(q []request) []request {
	for len(q) > 0 && q[0] == maybeSync {
		q = q[1:]
	}
	return q
}

// copyBegins is called for CopyInResponse. The oldest request is the one that asked
// for it.
func (x *Exchange) copyBegins() {
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
func (x *Exchange) copied() {
	x.copying, x.taking = false, false
	x.asked, x.maybes = slices.DeleteFunc(x.asked, func(r request) bool { return r == maybeSync }), 0
}

// Ready reports whether the last message of the server was a ReadyForQuery, and has
// arrived whole.
func (x *Exchange) Ready() bool { return x.down.kind == MsgReadyForQuery && x.down.boundary() }

// Copying reports whether a COPY FROM STDIN is running.
func (x *Exchange) Copying() bool { return x.copying }

// LastFromServer returns the type of the server's last message, or of the one that it is sending;
// 0 if there was none.
func (x *Exchange) LastFromServer() byte { return x.down.kind }

// Quiet reports whether the session is idle outside of a transaction, both sides have
// sent whole messages, and the server owes no answer, not even one in doubt.
func (x *Exchange) Quiet() bool {
	return x.status == StatusIdle && len(x.asked) == 0 && !x.lost && !x.copying && x.up.boundary() && x.down.boundary()
}

// ClientBoundary and ServerBoundary report whether what the client, or the server, has
// sent ends with a whole message.
func (x *Exchange) ClientBoundary() bool { return x.up.boundary() }
func (x *Exchange) ServerBoundary() bool { return x.down.boundary() }

// ServerRemainder returns the part of b, the next bytes of the server, that belongs to
// a message that has begun; nothing at a boundary. The error is ErrMalformed.
func (x *Exchange) ServerRemainder(b []byte) ([]byte, error) { return x.down.remainder(b) }
