package config

import (
	"errors"
	"os"
	"strings"
	"testing"
)

// FuzzParse: whatever the text, reading it comes to an end, every fault names the
// file and a line, and what is taken has a directory.
func FuzzParse(f *testing.F) {
	f.Add(whole)
	f.Add(smallConfig)
	f.Add("iam: {users: [{name: ana, permissions_boundary: }]}")
	if sample, err := os.ReadFile("../../docs/daypass.yaml"); err == nil {
		f.Add(string(sample))
	}
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, "/") && !strings.Contains(text, "://") {
			return // no files of this machine
		}
		c, err := Parse("f.yaml", []byte(text), wholeEnvironment)
		if err == nil {
			if c.Directory == nil || c.MayBecome(c) != nil {
				t.Errorf("Parse = %+v", c)
			}
			return
		}
		faults := []error{err}
		var several interface{ Unwrap() []error }
		if errors.As(err, &several) {
			faults = several.Unwrap()
		}
		for _, fault := range faults {
			if _, line, _ := strings.Cut(fault.Error(), ":"); !strings.HasSuffix(strings.SplitN(fault.Error(), ":", 2)[0], ".yaml") || line == "" {
				t.Errorf("%v names no file and line", fault)
			}
		}
	})
}
