package signin

import (
	"net/http"
	"net/http/httptest"
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
