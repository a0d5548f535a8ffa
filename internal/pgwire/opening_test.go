package pgwire_test

import (
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/daypass/daypass/internal/pgwire"
)

func message(kind byte, body string) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{kind}, uint32(4+len(body))), body...)
}

var (
	ok    = message('R', "\x00\x00\x00\x00")
	ready = message('Z', "I")
)

// TestOpening: an honest server's opening passes. Other rows change one thing about it, and must
// not pass.
func TestOpening(t *testing.T) {
	status := message('S', "server_version\x0018.4\x00")
	for _, test := range []struct {
		name  string
		bytes []byte
		want  string // empty: it passes
	}{
		{"honest", slices.Concat(ok, status, message('K', "pid.key."), ready), ""},
		{"honest, with SCRAM", slices.Concat(message('v', "\x00\x00\x00\x00\x00\x00\x00\x00"), message('R', "\x00\x00\x00\x0aSCRAM-SHA-256\x00\x00"),
			message('R', "\x00\x00\x00\x0br=x,s=eA==,i=4096"), message('R', "\x00\x00\x00\x0cv=x"), ok, status, message('N', "SNOTICE\x00\x00"), ready), ""},
		{"honest, notice ahead", slices.Concat(message('N', "SNOTICE\x00\x00"), ok, ready), ""},
		{"status ahead", slices.Concat(status, ok, ready), "before authentication"},
		{"key ahead", slices.Concat(message('K', "pid.key."), ok, ready), "before authentication"},
		{"ready ahead", slices.Concat(ready, ok, ready), "before authentication"},
		{"data ahead", slices.Concat(message('D', "\x00\x00"), ok, ready), "before authentication"},
		{"data", slices.Concat(ok, message('D', "\x00\x00"), ready), "before it is ready"},
		{"two keys", slices.Concat(ok, message('K', "pid.key."), message('K', "pid.key."), ready), "before it is ready"},
		{"long key", slices.Concat(ok, message('K', strings.Repeat("k", 261)), ready), "before it is ready"},
		{"authenticates twice", slices.Concat(ok, ok, ready), "before it is ready"},
		{"negotiates twice", slices.Concat(message('v', "12345678"), message('v', "12345678"), ok, ready), "before authentication"},
		{"negotiates late", slices.Concat(ok, message('v', "12345678"), ready), "before it is ready"},
		{"long authentication", slices.Concat(message('R', strings.Repeat("x", 9000)), ok, ready), "before authentication"},
		{"empty authentication", slices.Concat(message('R', ""), ok, ready), "before authentication"},
		{"iterations", slices.Concat(message('R', "\x00\x00\x00\x0br=x,s=eA==,i=2147483647"), ok, ready), "iterations"},
		{"iterations beyond numbers", slices.Concat(message('R', "\x00\x00\x00\x0br=x,s=eA==,i="+strings.Repeat("9", 99)), ok, ready), "iterations"},
		{"a long status", slices.Concat(ok, message('S', strings.Repeat("x", 1<<18)), ready), "bytes"},
		{"many statuses", slices.Concat(ok, slices.Repeat(status, 2000), ready), "messages"},
		{"many notices", slices.Concat(slices.Repeat(message('N', strings.Repeat("x", 1000)), 200), ok, ready), "KiB"},
		{"length below its own", []byte{'R', 0, 0, 0, 3}, "bytes"},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, step := range []int{1, 7, len(test.bytes)} {
				var s pgwire.Scanner
				var err error
				for rest := test.bytes; len(rest) > 0 && err == nil; {
					piece := rest[:min(step, len(rest))]
					rest = rest[len(piece):]
					_, err = s.Scan(piece)
				}
				switch {
				case test.want == "" && (err != nil || !s.Ready()):
					t.Fatalf("in pieces of %d: ready %v, error %v", step, s.Ready(), err)
				case test.want != "" && (!errors.Is(err, pgwire.ErrOpening) || !strings.Contains(err.Error(), test.want)):
					t.Fatalf("in pieces of %d: error %v, want %q", step, err, test.want)
				}
			}
		})
	}
}

// TestScanStopsAtReady: bytes after ReadyForQuery are not part of the opening.
func TestScanStopsAtReady(t *testing.T) {
	var s pgwire.Scanner
	opening := slices.Concat(ok, ready)
	n, err := s.Scan(append(slices.Clone(opening), "whatever"...))
	if n != len(opening) || err != nil || !s.Ready() {
		t.Errorf("Scan = %d, %v, ready %v; want %d and ready", n, err, s.Ready(), len(opening))
	}
}

// FuzzScanner: it does not matter how the stream is cut, and the scanner keeps no more bytes than
// its bound.
func FuzzScanner(f *testing.F) {
	f.Add(slices.Concat(ok, message('S', "a\x00b\x00"), ready), 3)
	f.Add(message('R', "\x00\x00\x00\x0br=x,s=eA==,i=4096"), 1)
	f.Fuzz(func(t *testing.T, b []byte, step int) {
		var whole, pieces pgwire.Scanner
		n, errWhole := whole.Scan(b)
		if n > len(b) || n > pgwire.MaxOpeningBytes+5 {
			t.Fatalf("took %d bytes of %d", n, len(b))
		}
		step = 1 + (step&0xff+0x100)%0x100
		var errPieces error
		for rest := b; len(rest) > 0 && errPieces == nil; {
			piece := rest[:min(step, len(rest))]
			rest = rest[len(piece):]
			_, errPieces = pieces.Scan(piece)
		}
		if (errWhole == nil) != (errPieces == nil) || whole.Ready() != pieces.Ready() {
			t.Fatalf("whole: %v, ready %v; in pieces of %d: %v, ready %v", errWhole, whole.Ready(), step, errPieces, pieces.Ready())
		}
	})
}
