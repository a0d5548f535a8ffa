package pgtest

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

// Eventually waits until happened returns true, and fails the test if that takes too long. The
// failure prints the values of show, such as a log.
func Eventually(t testing.TB, what string, happened func() bool, show ...fmt.Stringer) {
	t.Helper()
	const patience = 40 * time.Second
	for deadline := time.Now().Add(patience); !happened(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			for _, s := range show {
				t.Log(s)
			}
			t.Fatalf("did not happen within %v: %s", patience, what)
		}
	}
}

// Log is a log that can be read while it is written. Its zero value is empty.
type Log struct {
	mu   sync.Mutex
	text strings.Builder
	more chan struct{} // closed by the next write; nil: no one is waiting
}

func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.more != nil {
		close(l.more)
		l.more = nil
	}
	return l.text.Write(p)
}

func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// Len returns the number of bytes written.
func (l *Log) Len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Len()
}

// Wait returns after the next write, or after a while, because the write may have come before the
// call.
func (l *Log) Wait() {
	l.mu.Lock()
	if l.more == nil {
		l.more = make(chan struct{})
	}
	more := l.more
	l.mu.Unlock()
	select {
	case <-more:
	case <-time.After(100 * time.Millisecond):
	}
}
