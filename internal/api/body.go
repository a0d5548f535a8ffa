package api

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/daypass/daypass/internal/admission"
	"github.com/daypass/daypass/internal/audit"
	"github.com/daypass/daypass/internal/sigv4"
)

const (
	// largeBody is the size up to which a body is read without taking a place. Few
	// calls have larger ones, and unauthenticated clients could send one on each of
	// thousands of connections.
	largeBody = 8 << 10
	// smallBody is the largest body for which memory is allocated before it has
	// arrived.
	smallBody = 4 << 10
	// largePlaces is how many larger bodies are read at the same time, and largeShare
	// how many of them may come from one address.
	largePlaces = 64
	largeShare  = 16
)

// readBody reads the body, up to the limit of the service that the signature names. The
// signature is not verified yet, so the limit bounds only the memory that an
// unauthenticated client can take.
func (c *call) readBody() ([]byte, error) {
	if c.claim, c.claimErr = sigv4.Peek(c.http); c.claimErr == nil {
		claim := &c.claim
		if accessKeyID.check("", claim.AccessKeyID) == nil {
			c.claimed = claim.AccessKeyID
		} else {
			c.request = append(c.request, audit.Omitted("accessKeyId", len(claim.AccessKeyID)))
		}
		if s, ok := serviceByName(claim.Service); ok {
			c.service = s
		} else if sigv4.IsScopeName(claim.Service) {
			c.foreign = claim.Service
		}
	}
	limit := c.service.maxBody
	if c.http.ContentLength > limit {
		return nil, errBodyTooLarge
	}
	if c.http.Body == nil || c.http.ContentLength == 0 {
		return nil, nil
	}
	if n := c.http.ContentLength; n > 0 && n <= smallBody {
		body := make([]byte, n)
		if _, err := io.ReadFull(c.http.Body, body); err != nil {
			return nil, errBodyUnread
		}
		return body, nil
	}
	var body bytes.Buffer
	whole, err := readUpTo(&body, c.http.Body, min(limit, largeBody))
	if err == nil && !whole && limit > largeBody {
		whole, err = c.readLarge(&body, limit)
	}
	switch {
	case err != nil:
		return nil, err
	case !whole:
		return nil, errBodyTooLarge
	}
	return body.Bytes(), nil
}

// readUpTo reads r into body until it ends or body has more than most bytes, and
// reports whether it ended.
func readUpTo(body *bytes.Buffer, r io.Reader, most int64) (whole bool, err error) {
	switch _, err := io.CopyN(body, r, most+1-int64(body.Len())); {
	case errors.Is(err, io.EOF):
		return true, nil
	case err != nil:
		return false, errBodyUnread
	}
	return false, nil
}

// readLarge reads the rest of a large body. It takes one of the places for large
// bodies, which are shared out by address. A slow client loses its place to the next
// one, and its call ends.
func (c *call) readLarge(body *bytes.Buffer, limit int64) (whole bool, err error) {
	var turnedOut atomic.Bool
	v := admission.NewVisitor(c.source.address, func() {
		turnedOut.Store(true)
		c.breakOff()
	})
	v.Heard(true) // it has sent all that is allowed without a place
	ctx, cancel := context.WithTimeout(c.http.Context(), workWait)
	defer cancel()
	if c.handler.pressure.large.Admit(ctx, v) != nil {
		c.unrecorded = true
		return false, errOverload
	}
	defer c.handler.pressure.large.Leave(v)
	whole, err = readUpTo(body, attended{c.http.Body, v}, limit)
	if err != nil && turnedOut.Load() {
		c.unrecorded = true
		return false, errOverload
	}
	return whole, err
}

// attended reports to a visitor how long its bytes take to arrive.
type attended struct {
	io.Reader
	visitor *admission.Visitor
}

func (a attended) Read(b []byte) (int, error) {
	return a.visitor.Read(a.Reader, b)
}

// breakOff ends a pending read of the request's body.
func (c *call) breakOff() {
	_ = http.NewResponseController(c.writer).SetReadDeadline(time.Unix(1, 0))
}
