package pyvalue_test

import (
	"strings"
	"testing"

	"github.com/daypass/daypass/internal/awscli/pyvalue"
)

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
		if _, err := pyvalue.ParseJSON(test.text); err == nil || err.Error() != test.want {
			t.Errorf("ParseJSON(%q) = %v, want %s", test.text, err, test.want)
		}
	}
}

func TestDepthIsBounded(t *testing.T) {
	if _, err := pyvalue.ParseJSON(strings.Repeat("[", 100000)); err == nil {
		t.Error("ParseJSON took 100000 levels")
	}
}

func TestObjectKeepsOrder(t *testing.T) {
	var o pyvalue.Object
	for _, key := range []string{"z", "a", "m", "a"} {
		o.Set(key, key)
	}
	o.Delete("z")
	o.Delete("absent")
	o.Set("z", true)
	if got := pyvalue.JSON(&o, 0, false); got != `{"a": "a", "m": "m", "z": true}` {
		t.Errorf("object = %s", got)
	}
}

// FuzzParseJSON: what is read is written as JSON that is read as the same value.
func FuzzParseJSON(f *testing.F) {
	for _, seed := range []string{`{"b": 1, "a": [1.5, null, true], "b": "\u00e9\ud83d\ude00"}`, "[NaN, -Infinity]", "1e400", "123456789012345678901234567890", `"\ud800"`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		value, err := pyvalue.ParseJSON(text)
		if err != nil {
			return
		}
		for _, written := range []string{pyvalue.JSON(value, 0, true), pyvalue.JSON(value, 4, false), pyvalue.CompactJSON(value)} {
			again, err := pyvalue.ParseJSON(written)
			if err != nil || pyvalue.Repr(again) != pyvalue.Repr(value) {
				t.Errorf("%q is written as %q, which is read as %s, %v; want %s", text, written, pyvalue.Repr(again), err, pyvalue.Repr(value))
			}
		}
	})
}
