package signin

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestPagesShowWhatIsInvisible: text of strangers on any page, such as a claim of the provider or
// the name of a device, cannot reverse or hide what follows it.
func TestPagesShowWhatIsInvisible(t *testing.T) {
	const text, want = "a\u202eb\u2066c\u200bd\x1b[2J", `a\u202eb\u2066c\u200bd\u001b[2J`
	for name, data := range map[string]any{
		"problem": problemPage{Problem: text, Next: text},
		"none":    choicePage{Session: text, Issuer: text, Closed: []closedRole{{text, []string{text}}}, Claims: []claimRow{{text, text}}},
		"choose":  choicePage{Session: text, Issuer: text, Roles: []roleChoice{{text, true}}, Closed: []closedRole{{text, []string{text}}}},
		"client":  choicePage{Session: text, Issuer: text, Client: text, Roles: []roleChoice{{text, true}}},
		"allow":   devicePage{Session: text, Issuer: text, Code: text, Name: text, From: text, Here: text, Since: text, Hours: text, Roles: []roleChoice{{text, true}}, Choose: true},
		"device":  devicePage{Session: text, Issuer: text, Unknown: text},
		"code":    codePage{Session: text, Role: text, Code: text},
		"done":    donePage{Session: text, Allowed: true},
	} {
		w := httptest.NewRecorder()
		(&exchange{w: w}).show(http.StatusOK, name, data)
		page := w.Body.String()
		if !strings.Contains(page, want) || strings.ContainsAny(page, "\u202e\u2066\u200b\x1b") {
			t.Errorf("the page %q:\n%s", name, page)
		}
	}
}

// TestAnnouncedTextCanBeReadAgain: Orca speaks the text of an element with the role status, alert or
// timer once, when the page opens, and passes over it afterwards. A paragraph inside the element can
// be read line by line.
func TestAnnouncedTextCanBeReadAgain(t *testing.T) {
	announced := regexp.MustCompile(`<(\w+)[^<>]* role="(?:status|alert|timer)"[^<>]*>(\s*<p>)?`)
	found := 0
	for _, dir := range []string{"pages", "../console/pages"} {
		names, err := filepath.Glob(filepath.Join(dir, "*.html"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range announced.FindAllStringSubmatch(string(text), -1) {
				found++
				if m[1] != "div" || m[2] == "" {
					t.Errorf("%s: %s: must be a div with a paragraph", name, m[0])
				}
			}
		}
	}
	if found < 8 {
		t.Errorf("%d elements are announced in the pages; this test has to find them all", found)
	}
}
