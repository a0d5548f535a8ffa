package audit_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/daypass/daypass/internal/audit"
)

// TestRecent: a principal's lines are found over several days and files of any size, the newest
// first, and no line of another principal, even if it contains the ARN.
func TestRecent(t *testing.T) {
	dir := t.TempDir()
	now := time.Date(2026, 11, 27, 23, 0, 0, 0, time.UTC)
	w, err := audit.Open(dir, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	const ana, bob = "arn:aws:sts::123456789012:assumed-role/analyst/ana", "arn:aws:sts::123456789012:assumed-role/analyst/ana2"
	call := func(arn, name string) {
		t.Helper()
		err := put(w, audit.CallRecord{EventName: name, Time: now, Identity: audit.Identity{ARN: arn}, UserAgent: strings.Repeat("x", 400),
			Request: []audit.Field{audit.String("principal", ana), audit.String("text", `","userIdentity":{"arn":"`+ana+`"}`)}, FromConsole: true})
		if err != nil {
			t.Fatal(err)
		}
	}
	call(ana, "First")
	for i := range 1500 {
		call(bob, fmt.Sprintf("Other%d", i))
	}
	now = now.Add(2 * time.Hour) // another file
	call(bob, "Other")
	call(ana, "Second")
	call("", "Nobody")
	call(ana, "Third")
	all := func(*audit.Line) bool { return true }
	names := func(most int, keep func(*audit.Line) bool) string {
		t.Helper()
		lines, _, err := w.Recent(t.Context(), ana, most, keep)
		if err != nil {
			t.Fatal(err)
		}
		var list []string
		for _, l := range lines {
			list = append(list, l.EventName)
			if l.UserIdentity.ARN != ana || l.FromConsole != "true" || l.Request["principal"] != ana {
				t.Errorf("a line of Recent: %+v", l)
			}
		}
		return strings.Join(list, " ")
	}
	if got := names(10, all); got != "Third Second First" {
		t.Errorf("Recent = %q", got)
	}
	if got := names(2, all); got != "Third Second" {
		t.Errorf("Recent, two lines = %q", got)
	}
	if got := names(10, func(l *audit.Line) bool { return l.EventName != "Second" }); got != "Third First" {
		t.Errorf("Recent, filtered = %q", got)
	}
	// Reading is bounded: lines before 20 MB of others are not found, and since reports how far
	// it read.
	path := filepath.Join(dir, "2026-11-28.jsonl")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	flood := strings.Repeat(strings.Repeat("y", 4000)+"\n", 5000)
	if err := os.WriteFile(path, append([]byte(flood+strings.Repeat("z", 100_000)+"\n"), text...), 0o600); err != nil {
		t.Fatal(err)
	}
	lines, since, err := w.Recent(t.Context(), ana, 10, all)
	if err != nil || len(lines) != 2 || since.IsZero() {
		t.Errorf("Recent after a flood: %d lines since %v, %v", len(lines), since, err)
	}
	// It says no more than it has read, also about someone without a line.
	if _, since, err := w.Recent(t.Context(), "arn:aws:iam::123456789012:user/nobody", 10, all); err != nil || since.Before(now.Add(-time.Minute)) {
		t.Errorf("Recent of no one after a flood says that it has read since %v, %v", since, err)
	}
	// A reader who has left is not read for.
	ctx, leave := context.WithCancel(t.Context())
	leave()
	if _, _, err := w.Recent(ctx, ana, 10, all); !errors.Is(err, context.Canceled) {
		t.Errorf("Recent for a reader who has left: %v", err)
	}
}
