package pgwire_test

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/daypass/daypass/internal/pgwire"
)

// stream expands a short notation into messages: each letter is a message, with the body in
// brackets after it. Spaces are ignored.
func stream(short string) []byte {
	var b []byte
	for len(short) > 0 {
		kind := short[0]
		short = short[1:]
		if kind == ' ' {
			continue
		}
		body := ""
		if strings.HasPrefix(short, "[") {
			body, short, _ = strings.Cut(short[1:], "]")
		} else if kind == 'Z' {
			body = "I"
		}
		b = append(b, message(kind, body)...)
	}
	return b
}

// TestExchange: ">" is a message of the client, "<" one of the server, followed by the expected
// state.
func TestExchange(t *testing.T) {
	for _, row := range []struct{ name, script string }{
		{"query", ">Q active <TDDCZ idle"},
		{"in a transaction", ">Q active <CZ[T] in >Q active <EZ[E] aborted >Q active <CZ idle"},
		{"empty query", ">Q active <IZ idle"},
		{"extended query", ">PBDE active >S active <12TDCZ idle"},
		{"extended query without Sync", ">PBE active >H active <12C active >H active >S active <Z idle"},
		{"error in an extended query", ">PBE active <1E active >BES active <Z idle"},
		{"function call", ">F active <VZ idle"},
		{"Sync alone", ">S active <Z idle"},
		{"two queries at once", ">QQ active <TDCZ active <TDCZ idle"},
		{"two Syncs at once", ">PBES PBES active <12CZ active <12CZ idle"},
		{"errors in a pipeline", ">PBES PBES active <EZ active <12CZ idle"},
		{"statements of one query", ">Q active <CCTDC active <Z idle"},
		{"Terminate alone", ">X idle"},

		// Messages that may come at any time do not change the state.
		{"notification after the answer", ">Q active <CZ A[xxxx] idle"},
		{"notice after the answer", ">Q active <CZ N[xxxx] S[x] idle"},
		{"notifications to an idle client", "<A[xxxx] idle <AANS idle"},

		// Data that looks like messages.
		{"looks ready", ">Q active <D[Z\x00\x00\x00\x05I] active <d[Z\x00\x00\x00\x05I] active <CZ idle"},
		{"looks busy", ">Q[Q\x00\x00\x00\x05 Q\x00\x00\x00\x05] active <CZ idle"},

		{"COPY out", ">Q active <HdddcCZ idle"},
		{"COPY in", ">Q active <G active >ddd active >c active <CZ idle"},
		{"COPY in that fails", ">Q active <G active >dd active <EZ idle >dc idle"},
		{"COPY in that the client fails", ">Q active <G active >df active <EZ idle"},
		{"COPY in sent ahead", ">Qddc active <GCZ idle"},
		{"COPY in sent ahead, refused", ">Qddc active <EZ idle"},
		{"COPY in sent ahead, twice", ">Qdc QdcQ active <GCZ active <GCZ active <TCZ idle"},
		{"two COPYs in one query", ">Q active <G active >dc active <CG active >dc active <CZ idle"},
		{"COPY in with Syncs in it", ">Q active <G active >dSSdSc active <CZ idle"},
		{"extended COPY in", ">PBES active <12G active >ddcS active <CZ idle"},
		{"extended COPY in that fails", ">PBES active <12G active >ddcS active <EZ idle >PBES active <12CZ idle"},
		{"extended COPY in, failed before it took the Sync", ">PBES active <12G E Z idle >cS active <Z idle"},
		{"extended COPY in, failed, then a query", ">PBES active <12G active >dcS active <EZ idle >Q active <TDCZ idle"},
		{"COPY in after a COPY that failed", ">PBES active <12G active >dcS active <EZ idle >PBES active <12G active >cS active <CZ idle"},

		// A client that breaks the protocol counts as active for longer.
		{"query in COPY data", ">Q active <G active >d[bad] Q active <EZ active <DDD active"},
		{"a way around by COPY", ">PBES active <12G active >d[bad] ScSQ active <EZ active <Z active <DDD active"},
		{"query after an error without Sync", ">PBE active <E active >QS active <Z active"},
	} {
		x := pgwire.NewTracked()
		for i, step := range regroup(row.script) {
			switch step[0] {
			case '>':
				x.FromClient(stream(step[1:]))
			case '<':
				x.FromServer(stream(step[1:]))
			default:
				want := map[string]byte{"active": 0, "idle": 'I', "in": 'T', "aborted": 'E'}[step]
				if got := x.State(); got != want {
					t.Errorf("%s, step %d: %s, want %s", row.name, i, x.Verdict(), step)
				}
			}
		}
	}
}

// regroup splits a script at its states, which are lower-case words of more than one letter.
func regroup(script string) []string {
	var steps []string
	for word := range strings.FieldsSeq(script) {
		switch {
		case word == "active", word == "idle", word == "in", word == "aborted", word[0] == '>', word[0] == '<':
			steps = append(steps, word)
		default:
			steps[len(steps)-1] += word
		}
	}
	return steps
}

func TestExchangeMalformed(t *testing.T) {
	for name, b := range map[string][]byte{
		"length 0": {'Q', 0, 0, 0, 0}, "length 3": {'S', 0, 0, 0, 3}, "length -1": {'d', 255, 255, 255, 255},
		"2 GiB": {'d', 0x80, 0, 0, 0}, "over 1 GiB": {'d', 0x40, 0, 0, 5},
	} {
		for _, split := range []int{0, 1, 3, 5} {
			if _, err := pieces(b, split, pgwire.NewTracked().FromClient); err == nil {
				t.Errorf("%s from the client, split at %d: no error", name, split)
			}
			x := pgwire.NewTracked()
			if _, err := pieces(b, split, func(b []byte) (bool, error) { return false, x.FromServer(b) }); err == nil {
				t.Errorf("%s from the server, split at %d: no error", name, split)
			}
		}
	}
	for _, b := range [][]byte{message('Z', ""), message('Z', "II")} {
		if err := pgwire.NewTracked().FromServer(b); err == nil {
			t.Errorf("%q: no error", b)
		}
	}
	if _, err := pgwire.NewTracked().FromClient([]byte{'d', 0x40, 0, 0, 4}); err != nil {
		t.Errorf("a message of 1 GiB: %v", err)
	}
}

func pieces(b []byte, at int, f func([]byte) (bool, error)) (bool, error) {
	first, err := f(b[:at])
	if err != nil || at == len(b) {
		return first, err
	}
	second, err := f(b[at:])
	return first || second, err
}

// TestExchangeIsBounded: messages that PostgreSQL ignores without an answer do not fill memory, and
// do not make a session look idle.
func TestExchangeIsBounded(t *testing.T) {
	x := pgwire.NewTracked()
	x.FromClient(stream("PBE"))
	for range 200 {
		x.FromClient(bytes.Repeat(stream("PcQ"), 1000))
		if n := x.Asked(); n > 1<<16 {
			t.Fatalf("%d requests are kept", n)
		}
	}
	x.FromClient(stream("S"))
	x.FromServer(stream("EZ"))
	if x.State() != 0 {
		t.Errorf("state %q", x.State())
	}
}

// TestManyDoubtfulSyncs: a COPY that fails, followed by the maximum number of Syncs, costs about
// as much as the same number of plain Syncs. Searching the whole queue for each answer took
// seconds for 300 KB from a client.
func TestManyDoubtfulSyncs(t *testing.T) {
	const syncs = 1<<16 - 2
	fastest := time.Hour
	for try := 0; try < 5 && fastest > 2*time.Second; try++ { // the machine may be busy
		x := pgwire.NewTracked()
		x.FromClient(stream("PBE"))
		x.FromServer(stream("G"))
		x.FromClient(bytes.Repeat(stream("S"), syncs))
		began := time.Now()
		x.FromServer(stream("E"))
		x.FromServer(bytes.Repeat(stream("Z"), syncs))
		fastest = min(fastest, time.Since(began))
		if x.Asked() != 0 || x.State() == 0 || x.Miscounted() {
			t.Error(x.Verdict())
		}
	}
	if fastest > 2*time.Second {
		t.Errorf("%d answers took %v", syncs, fastest)
	}
}

// FuzzExchange: however the streams are cut into pieces, the verdict is the same as for whole
// messages, which a simple parser has split.
func FuzzExchange(f *testing.F) {
	f.Add(stream("QPBESX"), stream("TDCZ 12CZ"), uint64(1))
	f.Add(stream("PBES dddcS"), stream("12G CZ A Z[T]"), uint64(2))
	f.Add([]byte{'Q', 0, 0, 0, 3}, []byte{'Z', 0, 0, 0, 5}, uint64(3))
	f.Fuzz(func(t *testing.T, up, down []byte, seed uint64) {
		whole := pgwire.NewTracked()
		wantTerminated, wantErr := false, false
		for _, m := range messagesOf(up) {
			terminated, err := whole.FromClient(m)
			wantTerminated, wantErr = wantTerminated || terminated, wantErr || err != nil
		}
		for _, m := range messagesOf(down) {
			if wantErr {
				break
			}
			wantErr = whole.FromServer(m) != nil
		}
		r := rand.New(rand.NewPCG(seed, 1))
		cut := pgwire.NewTracked()
		terminated, failed := false, false
		for _, piece := range cuts(r, up) {
			if failed {
				break
			}
			bye, err := cut.FromClient(piece)
			terminated, failed = terminated || bye, err != nil
		}
		for _, piece := range cuts(r, down) {
			if failed {
				break
			}
			failed = cut.FromServer(piece) != nil
		}
		if failed != wantErr || !failed && (terminated != wantTerminated || cut.Verdict() != whole.Verdict()) {
			t.Fatalf("cut: %v %v %s\nwhole: %v %v %s", failed, terminated, cut.Verdict(), wantErr, wantTerminated, whole.Verdict())
		}
	})
}

// messagesOf splits a stream into messages. The last piece may be an incomplete message, or have an
// invalid length.
func messagesOf(b []byte) [][]byte {
	var list [][]byte
	for len(b) >= 5 {
		size := int(b[1])<<24 + int(b[2])<<16 + int(b[3])<<8 + int(b[4]) + 1
		if size < 5 || size > len(b) {
			break
		}
		list = append(list, b[:size])
		b = b[size:]
	}
	if len(b) > 0 {
		list = append(list, b)
	}
	return list
}

func cuts(r *rand.Rand, b []byte) [][]byte {
	var list [][]byte
	for len(b) > 0 {
		n := 1 + r.IntN(min(len(b), 12))
		list = append(list, b[:n])
		b = b[n:]
	}
	return list
}

// FuzzExchangeModel simulates a client, a server that behaves like PostgreSQL, and the bytes in
// transit between them.
func FuzzExchangeModel(f *testing.F) {
	for seed := range uint64(20) {
		f.Add(seed, true)
		f.Add(seed, false)
	}
	f.Fuzz(func(t *testing.T, seed uint64, honest bool) { play(t, seed, honest) })
}

func TestExchangeModel(t *testing.T) {
	n := uint64(20000)
	if testing.Short() {
		n = 2000
	}
	for seed := range n {
		play(t, seed, true)
		play(t, seed, false)
		if t.Failed() {
			return
		}
	}
}

// play simulates one session. An honest client keeps to the protocol; a hostile one sends
// anything. While the server is working for either client, the session must not look idle. It
// must look idle once all requests of an honest client have been answered.
func play(t *testing.T, seed uint64, honest bool) {
	r := rand.New(rand.NewPCG(seed, 2))
	x := pgwire.NewTracked()
	s := &modelServer{r: r, status: 'I'}
	c := &modelClient{r: r}
	var trace []string
	check := func() {
		if x.Miscounted() {
			t.Fatalf("seed %d, honest %v: miscounted: %s\n%s", seed, honest, x.Verdict(), strings.Join(trace, " "))
		}
		if s.working && x.State() != 0 {
			t.Fatalf("seed %d, honest %v: the server works, and the session looks idle: %s\n%s", seed, honest, x.Verdict(), strings.Join(trace, " "))
		}
	}
	var toServer, toClient []string
	for step := 0; step < 120 || honest && (len(toServer)+len(toClient) > 0 || !s.waits() || len(c.plan) > 0); step++ {
		if step > 3000 {
			t.Fatalf("seed %d: no end\n%s", seed, strings.Join(trace, " "))
		}
		switch n := r.IntN(8); {
		case n < 3: // the client sends
			var m string
			if honest {
				m = c.next(len(toServer)+len(toClient) == 0 && s.waits(), step < 120)
			} else {
				m = []string{"Q", "Q[c]", "Q[e]", "P", "E", "E[c]", "E[e]", "S", "S", "c", "d", "d[b]", "f", "F", "H", "Q[t]", "E[t]"}[r.IntN(17)]
			}
			if m != "" {
				trace = append(trace, ">"+m)
				x.FromClient(stream(m))
				toServer = append(toServer, m)
			}
		case n < 6: // the server takes a message, or sends more
			var said []string
			if len(toServer) > 0 && !s.talking() {
				trace = append(trace, "*"+toServer[0])
				said = s.take(toServer[0])
				toServer = toServer[1:]
			} else {
				said = s.more()
			}
			toClient = append(toClient, said...)
		default: // messages from the server arrive
			for range r.IntN(4) {
				if len(toClient) > 0 {
					trace = append(trace, "<"+toClient[0])
					x.FromServer(stream(toClient[0]))
					c.hear(toClient[0])
					toClient = toClient[1:]
					check()
				}
			}
		}
		check()
	}
	if honest && x.State() != s.status {
		t.Fatalf("seed %d: all is answered with %q, and the session looks different: %s\n%s", seed, s.status, x.Verdict(), strings.Join(trace, " "))
	}
}

// modelServer handles messages as PostgreSQL's PostgresMain and CopyGetData do. The body of a
// request selects its effect: an error, a COPY FROM STDIN, a COPY that a trigger makes fail.
type modelServer struct {
	r        *rand.Rand
	status   byte
	working  bool   // a request is being executed
	extended bool   // the request belongs to the extended protocol
	copying  bool   // the request reads COPY data
	skipping bool   // messages are ignored until Sync
	rest     string // the answers that are still to be sent
	open     bool   // an extended query without its Sync
}

func (s *modelServer) talking() bool { return s.rest != "" && !s.copying }
func (s *modelServer) waits() bool   { return !s.working && !s.open && !s.skipping }

// any adds messages that may come at any time.
func (s *modelServer) any(said ...string) []string {
	if s.r.IntN(6) == 0 {
		said = append(said, []string{"N[x]", "A[xxxx]", "S[x]"}[s.r.IntN(3)])
	}
	return said
}

func (s *modelServer) ready() []string {
	s.working, s.copying, s.open = false, false, false
	return s.any("Z[" + string(s.status) + "]")
}

func (s *modelServer) fail() []string {
	s.rest, s.copying = "", false
	if s.extended {
		s.working, s.skipping = false, true
		return s.any("E")
	}
	return append(s.any("E"), s.ready()...)
}

// more continues the request that is being executed.
func (s *modelServer) more() []string {
	if !s.working || s.copying {
		return s.any()
	}
	if s.rest == "" {
		return nil
	}
	next := s.rest[:1]
	s.rest = s.rest[1:]
	switch next {
	case "!":
		return s.fail()
	case "G":
		s.copying = true
		if strings.HasPrefix(s.rest, "!") { // a trigger fails before the first row is read
			s.rest = s.rest[1:]
			return append(s.any("G"), s.fail()...)
		}
		return s.any("G")
	case "Z":
		return s.ready()
	case ".":
		s.working = false
		return nil
	}
	return s.any(next)
}

func (s *modelServer) take(m string) []string {
	kind := m[0]
	if s.copying {
		switch kind {
		case 'd':
			if m == "d[b]" {
				return s.fail()
			}
			return nil
		case 'H', 'S':
			return nil
		case 'c':
			s.copying = false
			s.rest = "C" + s.rest
			return nil
		}
		return s.fail() // CopyFail, or a message that does not belong in a COPY
	}
	if kind == 'S' {
		s.skipping, s.extended = false, false
		return s.ready()
	}
	if s.skipping || strings.IndexByte("dcfH", kind) >= 0 {
		if kind != 'H' && !s.skipping {
			s.extended = false
		}
		return nil
	}
	s.working = true
	outcome := map[string]string{"": []string{"TDDC", "C", "I", "HdcC"}[s.r.IntN(4)], "e": "D!", "c": "G", "t": "G!"}[strings.Trim(m[1:], "[]")]
	switch kind {
	case 'Q':
		s.extended = false
		if s.r.IntN(4) == 0 && !strings.HasSuffix(outcome, "!") {
			outcome = "TDC" + outcome // results of earlier statements
		}
		s.rest = outcome + "Z"
	case 'F':
		s.extended, s.rest = false, "VZ"
	case 'P', 'B', 'D':
		s.extended, s.open = true, true
		s.rest = []string{"1.", "!"}[min(1, s.r.IntN(5)/4)]
	case 'E':
		s.extended, s.open = true, true
		s.rest = outcome + "."
	}
	return nil
}

// modelClient is a client that follows the protocol.
type modelClient struct {
	r      *rand.Rand
	plan   []string // the next messages; "?" waits for CopyInResponse or an error
	copies bool     // CopyInResponse has arrived
	failed bool     // an error has arrived
	synced bool     // the last message sent asks for ReadyForQuery
}

func (c *modelClient) hear(m string) {
	switch m[0] {
	case 'G':
		c.copies = true
	case 'E':
		c.failed = true
	}
}

// next returns the client's next message, or nothing. quiet reports that all requests have been
// answered, more that the client may send further requests.
func (c *modelClient) next(quiet, more bool) string {
	if len(c.plan) == 0 && more {
		requests := []string{"Q", "Q", "Q[e]", "PBES", "PBE[e]S", "PBEHBES", "F", "S", "PHS"}
		if quiet { // a client that waits for its turn to send COPY data has nothing else in transit
			c.copies, c.failed = false, false
			requests = append(requests, "Q[c]?ddc", "Q[c]?d[b]dc", "Q[c]?df", "Q[t]?dc", "Q[c]dc", "Q[c]?dSSHc", "PBE[c]dcS",
				"PBE[c]S?ddcS", "PBE[c]S?d[b]dcS", "PBE[c]S?dfS", "PBE[c]S?cS", "PBE[c]H?dcS", "PBE[t]S?dcS", "PBE[t]H?cS")
		}
		for _, m := range messagesOf(stream(requests[c.r.IntN(len(requests))])) {
			short := string(m[:1])
			if len(m) > 5 {
				short += "[" + string(m[5:]) + "]"
			}
			c.plan = append(c.plan, short)
		}
	}
	if len(c.plan) > 0 && c.plan[0] == "?" {
		switch {
		case c.copies:
			c.plan = c.plan[1:]
		case c.failed: // there is no COPY; send a Sync unless the last message implied one
			synced := c.synced
			c.plan = nil
			if !synced {
				return "S"
			}
			return ""
		default:
			return ""
		}
	}
	if len(c.plan) == 0 {
		return ""
	}
	m := c.plan[0]
	c.plan = c.plan[1:]
	c.synced = m == "S" || m[0] == 'Q'
	return m
}

// BenchmarkExchange measures following the messages, without sockets.
func BenchmarkExchange(b *testing.B) {
	row := func(n int) string { return strings.Repeat("x", n) }
	many := func(m []byte) []byte { return bytes.Repeat(m, max(1, 32<<10/len(m))) }
	for _, bench := range []struct {
		name     string
		up, down []byte
	}{
		{"select", stream("Q[select abalance from accounts where aid = 1]"), stream("T[" + row(30) + "]D[" + row(10) + "]C[SELECT 1]Z")},
		{"extended", stream("P[" + row(50) + "]B[" + row(20) + "]D[P]E[xxxxx]S"), stream("12T[" + row(30) + "]D[" + row(10) + "]C[SELECT 1]Z")},
		{"rows of 100 bytes", nil, many(stream("D[" + row(100) + "]"))},
		{"rows of 10 bytes", nil, many(stream("D[" + row(10) + "]"))},
		{"COPY out, rows of 100 bytes", nil, many(stream("d[" + row(100) + "]"))},
		{"COPY in, pieces of 8 KiB", many(stream("d[" + row(8192) + "]")), nil},
		{"COPY in, rows of 100 bytes", many(stream("d[" + row(100) + "]")), nil},
	} {
		b.Run(bench.name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(bench.up) + len(bench.down)))
			x := pgwire.NewTracked()
			for b.Loop() {
				x.FromClient(bench.up)
				x.FromServer(bench.down)
			}
		})
	}
}
