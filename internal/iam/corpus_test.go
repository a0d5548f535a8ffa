package iam_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/daypass/daypass/internal/iam"
)

// The corpus is testdata/decisions/*.txt; its README describes the format. Every row is one
// request with its decision according to AWS's documents.

// corpusRow is one request with its expected decision.
type corpusRow struct {
	file   string
	line   int
	name   string // name of the case
	source string
	docs   documents
	action string
	// resource, caller and owner belong to the request.
	resource, caller, owner string
	context                 []contextEntry
	want                    wantDecision
}

// documents are the policies of a case, as text, because the naive evaluator has its own parser.
type documents struct {
	identity, session []string
	boundary, trust   string
	hasSession        bool
}

type contextEntry struct {
	key    string
	values []string
	list   bool
}

type wantDecision struct {
	effect string // allowed, explicitDeny, implicitDeny
	policy string // of the deciding statement
	sid    string // its Sid or index
	layer  string // of an implicit deny
}

const (
	defaultAction   = "redshift:JoinGroup"
	defaultResource = "arn:aws:redshift:us-east-1:123456789012:dbgroup:examplecluster/analysts"
	defaultCaller   = "arn:aws:iam::123456789012:user/ana"
)

func TestDecisionCorpus(t *testing.T) {
	rows := readCorpus(t)
	if len(rows) < 300 {
		t.Errorf("the corpus has %d rows, want 300 at least", len(rows))
	}
	for _, row := range rows {
		t.Run(fmt.Sprintf("%s:%d/%s", row.file, row.line, row.name), func(t *testing.T) {
			if row.source == "" {
				t.Error("the row has no source")
			}
			policies := row.docs.compile(t)
			request := row.request(t)
			got := policies.Evaluate(request)
			row.want.check(t, got)
			if effect := naiveEvaluate(row.docs, request, row.context); effect != row.want.effect {
				t.Errorf("naive evaluator = %s, want %s", effect, row.want.effect)
			}
		})
	}
}

func (w wantDecision) check(t *testing.T, got iam.Decision) {
	t.Helper()
	if got.Effect.String() != w.effect {
		t.Fatalf("Evaluate = %+v, want %s", got, w.effect)
	}
	if w.effect == "implicitDeny" {
		if got.Layer.String() != w.layer || got.Policy != "" || got.Index != -1 {
			t.Errorf("Evaluate = %+v, want an implicit deny in the %s", got, w.layer)
		}
		return
	}
	if got.Policy != w.policy || got.Sid != w.sid && strconv.Itoa(got.Index) != w.sid {
		t.Errorf("Evaluate = %+v, want it decided by %s#%s", got, w.policy, w.sid)
	}
	if got.Line == 0 || got.Column == 0 {
		t.Errorf("Evaluate = %+v, want a position", got)
	}
}

func (d documents) compile(t testing.TB) iam.Policies {
	t.Helper()
	parse := func(kind iam.Kind, name, document string) *iam.Policy {
		p, err := iam.ParsePolicy(kind, name, []byte(document))
		if err != nil {
			t.Fatalf("ParsePolicy: %v", err)
		}
		return p
	}
	var policies iam.Policies
	for i, document := range d.identity {
		policies.Identity = append(policies.Identity, parse(iam.IdentityPolicy, fmt.Sprintf("identity%d", i+1), document))
	}
	if d.hasSession {
		policies.Session = []*iam.Policy{}
	}
	for i, document := range d.session {
		policies.Session = append(policies.Session, parse(iam.IdentityPolicy, fmt.Sprintf("session%d", i+1), document))
	}
	if d.boundary != "" {
		policies.Boundary = parse(iam.IdentityPolicy, "boundary", d.boundary)
	}
	if d.trust != "" {
		policies.Resource = parse(iam.TrustPolicy, "trust", d.trust)
	}
	return policies
}

func (row corpusRow) request(t testing.TB) *iam.Request {
	t.Helper()
	principal, err := iam.PrincipalFromARN(row.caller)
	if err != nil {
		if !strings.Contains(row.caller, ".") {
			t.Fatalf("caller %q: %v", row.caller, err)
		}
		principal = iam.Principal{Type: iam.ServicePrincipal, ARN: row.caller}
		if !strings.HasSuffix(row.caller, ".amazonaws.com") {
			principal.Type = iam.WebIdentityPrincipal
		}
	}
	ctx := iam.NewContext()
	for _, e := range row.context {
		if e.list {
			ctx.SetList(e.key, e.values)
		} else {
			ctx.Set(e.key, e.values[0])
		}
	}
	return &iam.Request{Principal: principal, Action: row.action, Resource: row.resource, Owner: row.owner, Context: ctx}
}

func readCorpus(t testing.TB) []corpusRow {
	t.Helper()
	files, err := filepath.Glob("testdata/decisions/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no corpus: %v", err)
	}
	var rows []corpusRow
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		reader := corpusReader{file: filepath.Base(file), defined: make(map[string]string)}
		for i, line := range strings.Split(string(data), "\n") {
			reader.line = i + 1
			if err := reader.read(line); err != nil {
				t.Fatalf("%s:%d: %v", file, reader.line, err)
			}
		}
		if err := reader.finish(); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		rows = append(rows, reader.rows...)
	}
	return rows
}

// corpusReader reads one file.
type corpusReader struct {
	file    string
	line    int
	start   int // line of the directive being read
	defined map[string]string
	current corpusRow
	text    strings.Builder // of the directive being read
	rows    []corpusRow
}

func (r *corpusReader) read(line string) error {
	switch {
	case strings.HasPrefix(line, "#"), strings.TrimSpace(line) == "":
		return nil
	case strings.HasPrefix(line, " "), strings.HasPrefix(line, "\t"):
		r.text.WriteString("\n" + line)
		return nil
	}
	if err := r.finish(); err != nil {
		return err
	}
	r.text.WriteString(line)
	r.start = r.line
	return nil
}

// finish processes the current directive.
func (r *corpusReader) finish() error {
	text := r.text.String()
	r.text.Reset()
	if text == "" {
		return nil
	}
	if row, found := strings.CutPrefix(text, "? "); found {
		return r.row(row)
	}
	name, value, found := strings.Cut(text, ":")
	if !found {
		return fmt.Errorf("no directive: %q", text)
	}
	value = strings.TrimSpace(value)
	if defined, ok := strings.CutPrefix(value, "@"); ok {
		if value, ok = r.defined[defined]; !ok {
			return fmt.Errorf("%q is not defined", defined)
		}
	}
	docs := &r.current.docs
	switch name {
	case "case":
		r.current = corpusRow{file: r.file, name: value, source: r.current.source}
	case "source":
		r.current.source = value
	case "define":
		key, document, _ := strings.Cut(value, " ")
		r.defined[key] = document
	case "identity":
		docs.identity = append(docs.identity, value)
	case "allow":
		docs.identity = append(docs.identity, `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*","Condition":`+value+`}]}`)
	case "deny":
		docs.identity = append(docs.identity, `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"},
			{"Effect":"Deny","Action":"*","Resource":"*","Condition":`+value+`}]}`)
	case "boundary":
		docs.boundary = value
	case "session":
		docs.hasSession = true
		if value != "none" {
			docs.session = append(docs.session, value)
		}
	case "trust":
		docs.trust = value
	case "action":
		r.current.action = value
	case "resource":
		r.current.resource = value
	case "caller":
		r.current.caller = value
	default:
		return fmt.Errorf("unknown directive %q", name)
	}
	return nil
}

func (r *corpusReader) row(text string) error {
	row := r.current
	row.line = r.start
	for _, preset := range []struct {
		field *string
		value string
	}{{&row.action, defaultAction}, {&row.resource, defaultResource}, {&row.caller, defaultCaller}} {
		if *preset.field == "" {
			*preset.field = preset.value
		}
	}
	words, err := splitWords(text)
	if err != nil {
		return err
	}
	arrow := len(words)
	for i, word := range words {
		if word == "=>" {
			arrow = i
			break
		}
		if err := row.assign(word); err != nil {
			return err
		}
	}
	if arrow+1 >= len(words) {
		return fmt.Errorf("no decision: %q", text)
	}
	if row.want, err = parseWant(words[arrow+1:]); err != nil {
		return err
	}
	r.rows = append(r.rows, row)
	return nil
}

// assign takes name=value, or name=[a|b] for a list.
func (row *corpusRow) assign(word string) error {
	name, value, found := strings.Cut(word, "=")
	switch {
	case !found:
		return fmt.Errorf("not name=value: %q", word)
	case name == "action":
		row.action = value
	case name == "resource":
		row.resource = value
	case name == "caller":
		row.caller = value
	case name == "owner":
		row.owner = value
	case strings.HasPrefix(value, "[") && strings.HasSuffix(value, "]"):
		entry := contextEntry{key: name, list: true}
		switch value {
		case "[]":
		case "[<empty>]":
			entry.values = []string{""}
		default:
			entry.values = strings.Split(value[1:len(value)-1], "|")
		}
		row.context = append(row.context[:len(row.context):len(row.context)], entry)
	default:
		row.context = append(row.context[:len(row.context):len(row.context)], contextEntry{key: name, values: []string{value}})
	}
	return nil
}

func parseWant(words []string) (wantDecision, error) {
	want := wantDecision{effect: words[0]}
	switch want.effect {
	case "allowed":
		want.policy, want.sid = "identity1", "0"
	case "explicitDeny":
		want.policy, want.sid = "identity1", "1"
	case "implicitDeny":
		want.layer = "identity-based policy"
	default:
		return want, fmt.Errorf("unknown decision %q", words[0])
	}
	switch {
	case len(words) == 1:
	case words[1] == "by" && len(words) == 3 && want.layer == "":
		want.policy, want.sid, _ = strings.Cut(words[2], "#")
	case words[1] == "in" && want.layer != "":
		want.layer = strings.Join(words[2:], " ")
	default:
		return want, fmt.Errorf("not understood: %q", words)
	}
	return want, nil
}

// splitWords splits at spaces outside double quotes, and removes the quotes.
func splitWords(text string) ([]string, error) {
	var words []string
	var word strings.Builder
	quoted, open := false, false
	for _, r := range text {
		switch {
		case r == '"':
			open = !open
			quoted = true
		case (r == ' ' || r == '\n' || r == '\t') && !open:
			if word.Len() > 0 || quoted {
				words = append(words, word.String())
			}
			word.Reset()
			quoted = false
		default:
			word.WriteRune(r)
		}
	}
	if open {
		return nil, fmt.Errorf("quote not closed: %q", text)
	}
	if word.Len() > 0 || quoted {
		words = append(words, word.String())
	}
	return words, nil
}
