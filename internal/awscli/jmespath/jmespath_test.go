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

func documents(t *testing.T) *jmespath.Object {
	t.Helper()
	data, err := os.ReadFile("testdata/documents.json")
	if err != nil {
		t.Fatal(err)
	}
	v, err := jmespath.ParseJSON(string(data))
	if err != nil {
		t.Fatal(err)
	}
	return v.(*jmespath.Object)
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
		before := jmespath.JSON(document, 0, true)
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
			// A message that holds the address of a Python object cannot be equal.
			if err == nil || err.Error() != e.Error && !strings.Contains(e.Error, "object at 0x") {
				t.Errorf("%s: Search(%s) = %v, want %s", e.Document, e.Expression, err, e.Error)
			}
		case err != nil:
			t.Errorf("%s: Search(%s): %v", e.Document, e.Expression, err)
		default:
			if text := jmespath.JSON(got, 0, true); text != *e.Result {
				t.Errorf("%s: Search(%s) = %s, want %s", e.Document, e.Expression, text, *e.Result)
			}
			if text := jmespath.Str(got); e.Text != "" && text != e.Text {
				t.Errorf("%s: Str(Search(%s)) = %s, want %s", e.Document, e.Expression, text, e.Text)
			}
		}
		if after := jmespath.JSON(document, 0, true); after != before {
			t.Fatalf("Search(%s) changed its document", e.Expression)
		}
	}
}

func TestJSONErrors(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{``, "Expecting value: line 1 column 1 (char 0)"},
		{`nope`, "Expecting value: line 1 column 1 (char 0)"},
		{`{`, "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"},
		{`{"a" 1}`, "Expecting ':' delimiter: line 1 column 6 (char 5)"},
		{`{"a": 1 "b": 2}`, "Expecting ',' delimiter: line 1 column 9 (char 8)"},
		{`{"a": 1,}`, "Expecting property name enclosed in double quotes: line 1 column 9 (char 8)"},
		{`{'a': 1}`, "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"},
		{`[1, 2`, "Expecting ',' delimiter: line 1 column 6 (char 5)"},
		{`[1,]`, "Expecting value: line 1 column 4 (char 3)"},
		{`{} {}`, "Extra data: line 1 column 4 (char 3)"},
		{`"abc`, "Unterminated string starting at: line 1 column 1 (char 0)"},
		{"{\n  \"é\": x\n}", "Expecting value: line 2 column 8 (char 9)"},
		{"\"a\tb\"", "Invalid control character at: line 1 column 3 (char 2)"},
		{`"\q"`, "Invalid \\escape: line 1 column 2 (char 1)"},
	} {
		if _, err := jmespath.ParseJSON(test.text); err == nil || err.Error() != test.want {
			t.Errorf("ParseJSON(%q) = %v, want %s", test.text, err, test.want)
		}
	}
}

func TestDepthIsBounded(t *testing.T) {
	deep := strings.Repeat("[", 100000)
	if _, err := jmespath.ParseJSON(deep); err == nil {
		t.Error("ParseJSON took 100000 levels")
	}
	for _, unit := range []string{"[", "(", "!", "a[?", "{a:", "&"} {
		if _, err := jmespath.Compile(strings.Repeat(unit, 100000)); err == nil {
			t.Errorf("Compile took 100000 × %q", unit)
		}
	}
}

func TestObjectKeepsOrder(t *testing.T) {
	var o jmespath.Object
	for _, key := range []string{"z", "a", "m", "a"} {
		o.Set(key, key)
	}
	o.Delete("z")
	o.Delete("absent")
	o.Set("z", true)
	if got := jmespath.JSON(&o, 0, false); got != `{"a": "a", "m": "m", "z": true}` {
		t.Errorf("object = %s", got)
	}
}

// FuzzCompile holds the language against itself: what the specification says about
// parentheses, pipes, operators and multi-selects has to hold for every expression. The
// values themselves are compared with Python's in TestAgainstPython.
func FuzzCompile(f *testing.F) {
	for _, seed := range []string{"a.b[?c==`1`].{d: e}", "sort_by(@, &a)[::-1]", "'x' | \"y\"", "a[*][0:2]", "n[1:]", "*", "!a", "&a", "a.b[].e || n", "to_string(n)", "abs(a)"} {
		f.Add(seed)
	}
	const text = `{"a": {"b": [{"c": 1, "e": "x"}]}, "n": [1, 2.5, null]}`
	document, err := jmespath.ParseJSON(text)
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
		return jmespath.JSON(value, 0, false)
	}
	f.Fuzz(func(t *testing.T, expression string) {
		compiled, err := jmespath.Compile(expression)
		if err != nil || len(expression) > 400 { // longer ones may nest as deep as is allowed
			return
		}
		if compiled.String() != expression {
			t.Errorf("Compile(%q).String() = %q", expression, compiled.String())
		}
		want := search(t, expression)
		if again := jmespath.JSON(document, 0, false); again != text {
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
		value, err := jmespath.ParseJSON(want)
		if err == nil && jmespath.JSON(value, 0, false) != want {
			t.Errorf("%q = %s, which is read as %s", expression, want, jmespath.JSON(value, 0, false))
		}
	})
}
