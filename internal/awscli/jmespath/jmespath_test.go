package jmespath_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/daypass/daypass/internal/awscli/jmespath"
	"github.com/daypass/daypass/internal/awscli/pyvalue"
)

var update = flag.Bool("update", false, "record the expectations anew with the jmespath package of python3")

// expectation is one line of testdata/expressions.golden, recorded from the
// implementation that the AWS CLI uses.
type expectation struct {
	Document   string  `json:"document"`
	Expression string  `json:"expression"`
	Result     *string `json:"result"` // JSON
	Text       string  `json:"text"`   // as the text format prints it
	Syntax     string  `json:"syntax"` // the error of Compile
	Error      string  `json:"error"`  // the error of Search
}

func expectations(t *testing.T) []expectation {
	t.Helper()
	const golden = "testdata/expressions.golden"
	if *update {
		cmd := exec.Command("python3", "record.py")
		cmd.Dir = "testdata"
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("recording: %v", err)
		}
		if err := os.WriteFile(golden, out, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	var all []expectation
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e expectation
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.Fatal(err)
		}
		all = append(all, e)
	}
	return all
}

func documents(t *testing.T) *pyvalue.Object {
	t.Helper()
	data, err := os.ReadFile("testdata/documents.json")
	if err != nil {
		t.Fatal(err)
	}
	v, err := pyvalue.ParseJSON(string(data))
	if err != nil {
		t.Fatal(err)
	}
	return v.(*pyvalue.Object)
}

func TestAgainstPython(t *testing.T) {
	docs := documents(t)
	all := expectations(t)
	if len(all) < 400 {
		t.Fatalf("%d expectations, want more than 400", len(all))
	}
	for _, e := range all {
		document, ok := docs.Get(e.Document)
		if !ok {
			t.Fatalf("no document %q", e.Document)
		}
		before := pyvalue.JSON(document, 0, true)
		compiled, err := jmespath.Compile(e.Expression)
		if e.Syntax != "" {
			if err == nil || err.Error() != e.Syntax {
				t.Errorf("Compile(%s) = %v, want %s", e.Expression, err, e.Syntax)
			}
			continue
		}
		if err != nil {
			t.Errorf("Compile(%s): %v", e.Expression, err)
			continue
		}
		got, err := compiled.Search(document)
		switch {
		case e.Error != "":
			// A message with the address of a Python object cannot be reproduced.
			if err == nil || err.Error() != e.Error && !strings.Contains(e.Error, "object at 0x") {
				t.Errorf("%s: Search(%s) = %v, want %s", e.Document, e.Expression, err, e.Error)
			}
		case err != nil:
			t.Errorf("%s: Search(%s): %v", e.Document, e.Expression, err)
		default:
			if text := pyvalue.JSON(got, 0, true); text != *e.Result {
				t.Errorf("%s: Search(%s) = %s, want %s", e.Document, e.Expression, text, *e.Result)
			}
			if text := pyvalue.Str(got); e.Text != "" && text != e.Text {
				t.Errorf("%s: Str(Search(%s)) = %s, want %s", e.Document, e.Expression, text, e.Text)
			}
		}
		if after := pyvalue.JSON(document, 0, true); after != before {
			t.Fatalf("Search(%s) changed its document", e.Expression)
		}
	}
}

func TestDepthIsBounded(t *testing.T) {
	for _, unit := range []string{"[", "(", "!", "a[?", "{a:", "&"} {
		if _, err := jmespath.Compile(strings.Repeat(unit, 100000)); err == nil {
			t.Errorf("Compile took 100000 × %q", unit)
		}
	}
}

// FuzzCompile checks the language against itself: the specification's rules for parentheses,
// pipes, operators and multi-selects must hold for every expression. TestAgainstPython compares
// the values themselves with Python's.
func FuzzCompile(f *testing.F) {
	for _, seed := range []string{"a.b[?c==`1`].{d: e}", "sort_by(@, &a)[::-1]", "'x' | \"y\"", "a[*][0:2]", "n[1:]", "*", "!a", "&a", "a.b[].e || n", "to_string(n)", "abs(a)"} {
		f.Add(seed)
	}
	const text = `{"a": {"b": [{"c": 1, "e": "x"}]}, "n": [1, 2.5, null]}`
	document, err := pyvalue.ParseJSON(text)
	if err != nil {
		f.Fatal(err)
	}
	// search returns the value as JSON, or the error.
	search := func(t *testing.T, expression string) string {
		compiled, err := jmespath.Compile(expression)
		if err != nil {
			t.Fatalf("Compile(%q): %v", expression, err)
		}
		value, err := compiled.Search(document)
		if err != nil {
			return "error: " + err.Error()
		}
		return pyvalue.JSON(value, 0, false)
	}
	f.Fuzz(func(t *testing.T, expression string) {
		compiled, err := jmespath.Compile(expression)
		if err != nil || len(expression) > 400 { // longer ones may reach the limit of nesting
			return
		}
		if compiled.String() != expression {
			t.Errorf("Compile(%q).String() = %q", expression, compiled.String())
		}
		want := search(t, expression)
		if again := pyvalue.JSON(document, 0, false); again != text {
			t.Fatalf("Search(%q) changed its document to %s", expression, again)
		}
		inner := "(" + expression + ")"
		for _, same := range []string{inner, inner + " | @", "@ | " + inner, inner + " || " + inner, inner + " && " + inner, "[" + inner + "] | [0]", "{k: " + inner + "}.k"} {
			if got := search(t, same); got != want {
				t.Errorf("%q = %s, but %q = %s", expression, want, same, got)
			}
		}
		if strings.HasPrefix(want, "error: ") {
			return
		}
		no, yes := search(t, "!"+inner), search(t, "!!"+inner)
		if no == yes || no != "true" && no != "false" {
			t.Errorf("!%s = %s, !!%s = %s", inner, no, inner, yes)
		}
		value, err := pyvalue.ParseJSON(want)
		if err == nil && pyvalue.JSON(value, 0, false) != want {
			t.Errorf("%q = %s, which is read as %s", expression, want, pyvalue.JSON(value, 0, false))
		}
	})
}
