package login

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

// TestBrowserCommands: BROWSER is a program or a command, as for other programs.
func TestBrowserCommands(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "with space")
	program := filepath.Join(dir, "browser")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(program, []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	const u = "https://d.example.com/?a=b:c"
	for _, row := range []struct {
		system, browser string
		want            [][]string
	}{
		{"linux", "", [][]string{{"xdg-open", u}}},
		{"darwin", "", [][]string{{"open", u}}},
		{"windows", "", [][]string{{"rundll32", "url.dll,FileProtocolHandler", u}}},
		{"linux", "firefox", [][]string{{"firefox", u}}},
		{"linux", "firefox --private-window %s &", [][]string{{"firefox", "--private-window", u}}},
		{"linux", "w3m:firefox -new-tab", [][]string{{"w3m", u}, {"firefox", "-new-tab", u}}},
		{"linux", program, [][]string{{program, u}}},
		{"linux", ":", [][]string{{"xdg-open", u}}},
	} {
		if got := browserCommands(row.system, u, row.browser); !reflect.DeepEqual(got, row.want) {
			t.Errorf("BROWSER=%q on %s: %q, want %q", row.browser, row.system, got, row.want)
		}
	}
	if err := OpenBrowser(u, filepath.Join(dir, "none")+":"+program); err != nil {
		t.Errorf("the second browser: %v", err)
	}
	if err := OpenBrowser(u, filepath.Join(dir, "none")); err == nil {
		t.Error("no error for a browser that does not exist")
	}
}
