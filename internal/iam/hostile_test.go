package iam_test

import (
	"errors"
	"runtime"
	"strings"
	"testing"

	"github.com/daypass/daypass/internal/iam"
)

const documentLimit = 131072

// fill returns a document of the largest size: before, as many repetitions of repeated as fit,
// and after.
func fill(before, repeated, after string) string {
	return before + strings.Repeat(repeated, (documentLimit-len(before)-len(after))/len(repeated)) + after
}

// hostileDocuments have the largest size, and are designed to be as expensive as possible.
func hostileDocuments() map[string]string {
	long := strings.Repeat("k", 60000)
	statement := func(elements string) (before, after string) {
		return `{"Version":"2012-10-17","Statement":{"Effect":"Allow",` + elements, `}}`
	}
	documents := map[string]string{
		"a long name above many values":    fill(`{"`+long+`":[`, "1,", "1]}"),
		"long names above one another":     fill(strings.Repeat(`{"`+long[:4000]+`":`, 30)+"[", "1,", "1]"+strings.Repeat("}", 30)),
		"lists in lists":                   fill(strings.Repeat("[", 30), "1,", "1"+strings.Repeat("]", 30)),
		"a long unknown element":           fill(`{"`, "k", `":1}`),
		"an error behind a long name":      `{"` + long + `":{"` + long + `":x`,
		"variables that do not close":      fill(`{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"*","Resource":"arn:aws:s3:::`, "${", `"}}`),
		"variables before the fifth colon": fill(`{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"*","Resource":"arn:aws:`, "${ ", `:::x"}}`),
	}
	var names strings.Builder
	names.WriteString("{")
	for i := 0; names.Len() < documentLimit-20; i++ {
		names.WriteString(`"` + base36(i) + `":1,`)
	}
	documents["many names"] = names.String() + `"-":1}`
	for name, elements := range map[string][2]string{
		"many actions":       {`"Resource":"*","Action":["*"`, `,"*"`},
		"many resources":     {`"Action":"*","Resource":["*"`, `,"*"`},
		"many values":        {`"Action":"*","Resource":"*","Condition":{"StringLike":{"a:b":["*"`, `,"*"`},
		"many variables":     {`"Action":"*","Resource":"*","Condition":{"StringLike":{"a:b":["*"`, `,"${a}"`},
		"many ARNs":          {`"Action":"*","Resource":"*","Condition":{"ArnLike":{"a:b":["*"`, `,"::::::"`},
		"one value of marks": {`"Action":"*","Resource":"*","Condition":{"StringLike":{"a:b":["`, `?*a`},
	} {
		before, after := statement(elements[0])
		closing := "]"
		if strings.HasSuffix(elements[0], `"a:b":["`) {
			closing = `"]`
		}
		if strings.Contains(elements[0], "Condition") {
			closing += "}}"
		}
		documents[name] = fill(before, elements[1], closing+after)
	}
	return documents
}

func base36(i int) string {
	const digits = "0123456789abcdefghijklmnopqrstuvwxyz"
	text := string(digits[i%36])
	for i /= 36; i > 0; i /= 36 {
		text += string(digits[i%36])
	}
	return text
}

// The memory for a document is proportional to its size, and an error message does not repeat
// the document.
func TestParseHostile(t *testing.T) {
	for name, document := range hostileDocuments() {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := iam.ParsePolicy(iam.IdentityPolicy, "p", []byte(document))
		runtime.ReadMemStats(&after)
		// A document has at most one value for every two bytes, and a policy value takes a few
		// hundred bytes.
		if cost := after.TotalAlloc - before.TotalAlloc; cost > 300*documentLimit {
			t.Errorf("%s: parsing takes %d bytes for each byte of the document", name, cost/documentLimit)
		}
		if bad, ok := errors.AsType[*iam.PolicyError](err); ok && len(bad.Error()) > 5000 {
			t.Errorf("%s: the error has %d bytes: %.100s…", name, len(bad.Error()), bad)
		}
	}
}

// BenchmarkParseHostile measures the largest documents.
func BenchmarkParseHostile(b *testing.B) {
	for name, document := range hostileDocuments() {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				iam.ParsePolicy(iam.IdentityPolicy, "p", []byte(document))
			}
		})
	}
}
