package config

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"
)

// FuzzParse: parsing terminates for any text, every fault names the file and one of its
// lines, and an accepted configuration has a directory.
func FuzzParse(f *testing.F) {
	f.Add(whole)
	f.Add(smallConfig)
	f.Add("iam: {users: [{name: ana, permissions_boundary: }]}")
	if sample, err := os.ReadFile("../../docs/daypass.yaml"); err == nil {
		f.Add(string(sample))
	}
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, "/") && !strings.Contains(text, "://") {
			return // keep away from the files of this machine
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
			parts := strings.SplitN(fault.Error(), ":", 3)
			if len(parts) < 3 || parts[0] != "f.yaml" {
				t.Errorf("%v does not begin with file and line", fault)
				continue
			}
			if line, err := strconv.Atoi(parts[1]); err != nil || line < 1 || line > strings.Count(text, "\n")+1 {
				t.Errorf("%v does not name a line of the file", fault)
			}
		}
	})
}
