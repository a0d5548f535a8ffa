package config

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
)

// TestParts: a change of a key that has to be the same on all servers changes Common, and in Parts
// the part that the key is in. A change of a server's own keys changes neither.
func TestParts(t *testing.T) {
	file := wholeSite(t)
	parse := func(root *yaml.Node) (*Config, error) {
		text, err := yaml.Marshal(root)
		if err != nil {
			t.Fatal(err)
		}
		return Parse(file, text, wholeEnvironment)
	}
	root, places := wholePlaces(t, whole)
	before, err := parse(root)
	if err != nil {
		t.Fatal(err)
	}
	named := slices.Sorted(maps.Keys(before.Parts))
	for _, want := range []string{"account", "clusters.session_limits", "clusters.upstream", "files", "iam", "sign_in"} {
		if !slices.Contains(named, want) {
			t.Errorf("Parts has no %s: %v", want, named)
		}
	}
	for _, never := range []string{"data", "admin", "clusters", "clusters.marker"} {
		if slices.Contains(named, never) {
			t.Errorf("Parts has %s", never)
		}
	}
	tried := 0
	for n, p := range places {
		root, places := wholePlaces(t, whole)
		if !places[n].alter() {
			continue
		}
		after, err := parse(root)
		if err != nil || p.row.value == path { // another path to the same content is no change
			continue
		}
		tried++
		own := slices.ContainsFunc(ownKeys, func(own string) bool { return p.path == own || strings.HasPrefix(p.path, own+".") })
		if changed := before.Common != after.Common; changed == own {
			t.Errorf("%s: Common changed: %t; it is a server's own: %t", p.path, changed, own)
		}
		var different []string
		for name := range before.Parts {
			if before.Parts[name] != after.Parts[name] {
				different = append(different, name)
			}
		}
		if want := []string{part(p.path)}; !own && !slices.Equal(different, want) {
			t.Errorf("%s: the parts %v changed, want %v", p.path, different, want)
		}
	}
	if tried < 50 {
		t.Errorf("%d keys were changed", tried)
	}
}
