package server

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	elements   = regexp.MustCompile(`<([a-z0-9]+)((?:\s+[a-z-]+(?:="[^"]*")?)*)\s*>`)
	language   = regexp.MustCompile(`^<!doctype html>\s*<html lang="en">`)
	attributes = regexp.MustCompile(`([a-z-]+)(?:="([^"]*)")?`)
)

// checkPage checks what a screen reader needs of a page: a language, one main heading and no level
// of headings left out, a name for whatever takes the focus, and references that lead somewhere.
// Every page that a browser of the tests gets is checked.
func checkPage(t *testing.T, path, page string) {
	t.Helper()
	ids, labels, refs := map[string]int{}, map[string]bool{}, []string{}
	var controls []map[string]string
	level, labelled := 0, 0
	if !language.MatchString(page) {
		t.Errorf("%s: the page has no language", path)
	}
	for _, at := range elements.FindAllStringSubmatchIndex(page, -1) {
		name, has := page[at[2]:at[3]], map[string]string{}
		for _, a := range attributes.FindAllStringSubmatch(page[at[4]:at[5]], -1) {
			has[a[1]] = a[2]
		}
		if id := has["id"]; id != "" {
			ids[id]++
		}
		for _, ref := range []string{"aria-describedby", "aria-labelledby"} {
			refs = append(refs, strings.Fields(has[ref])...)
		}
		_, focus := has["tabindex"]
		switch {
		case name == "label" && has["for"] != "":
			labels[has["for"]] = true
		case slices.Contains([]string{"input", "select", "textarea"}, name) && has["type"] != "hidden":
			// A label around a choice is open here.
			if before := page[:at[0]]; strings.LastIndex(before, "<label") <= strings.LastIndex(before, "</label>") {
				controls = append(controls, has)
			}
		case focus && has["tabindex"] == "0" && (has["role"] == "" || has["aria-label"] == ""):
			t.Errorf("%s: <%s> takes the focus and has no role or no name", path, name)
		case len(name) == 2 && name[0] == 'h' && name[1] >= '1' && name[1] <= '6':
			now := int(name[1] - '0')
			if now > level+1 {
				t.Errorf("%s: after a heading of level %d comes one of level %d", path, level, now)
			}
			if level = now; now == 1 {
				labelled++
			}
		case name == "a" || name == "button":
			text, _, _ := strings.Cut(page[at[1]:], "</"+name+">")
			if words(text) == "" && has["aria-label"] == "" {
				t.Errorf("%s: a <%s> without a name", path, name)
			}
		}
	}
	for _, has := range controls {
		if has["aria-label"] == "" && !labels[has["id"]] {
			t.Errorf("%s: a field has no label: %v", path, has)
		}
	}
	for id, n := range ids {
		if n > 1 {
			t.Errorf("%s: the id %s is there %d times", path, id, n)
		}
	}
	for _, ref := range refs {
		if ids[ref] == 0 {
			t.Errorf("%s: a reference to %q, which the page does not have", path, ref)
		}
	}
	if labelled != 1 {
		t.Errorf("%s: %d main headings, want 1", path, labelled)
	}
}
