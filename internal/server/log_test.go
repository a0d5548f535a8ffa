package server_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/daypass/daypass/internal/credential"
	"github.com/daypass/daypass/internal/keyring"
	"github.com/daypass/daypass/internal/server"
)

// TestJournal: each line begins with the priority of its level, loggers with attributes included.
func TestJournal(t *testing.T) {
	for _, asJSON := range []bool{false, true} {
		var out bytes.Buffer
		log := server.NewLog(&out, server.LogOptions{Level: slog.LevelDebug, JSON: asJSON, Journal: true}).With("a", 1)
		log.Debug("m")
		log.Info("m")
		log.WithGroup("g").Warn("m", "b", "line one\nline two")
		log.Error("m")
		var priorities []string
		for line := range strings.Lines(out.String()) {
			priorities = append(priorities, line[:3])
			if asJSON && !json.Valid([]byte(line[3:])) {
				t.Errorf("not JSON after the priority: %s", line)
			}
		}
		if want := []string{"<7>", "<6>", "<4>", "<3>"}; !slices.Equal(priorities, want) {
			t.Errorf("as JSON %v: the priorities are %v, want %v:\n%s", asJSON, priorities, want, out.String())
		}
	}
}

// TestLog: both formats have the same content, and neither contains a password.
func TestLog(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	password, err := credential.Mint(keyring.New(now), credential.Grant{ID: credential.NewID(), Cluster: "c", DBUser: "alice", IssuedAt: now, NotAfter: now.Add(time.Hour), Principal: "p"})
	if err != nil {
		t.Fatal(err)
	}
	for _, asJSON := range []bool{false, true} {
		var out bytes.Buffer
		log := server.NewLog(&out, server.LogOptions{JSON: asJSON})
		log.Debug("too much")
		log.Info("a message", "user", password.Reveal(), "error", errors.New("role "+password.Reveal()+" does not exist"), "n", 5)
		text := out.String()
		if strings.Count(text, "\n") != 1 || strings.Contains(text, password.Reveal()) || strings.Count(text, "[redacted]") != 2 {
			t.Errorf("as JSON %v: %s", asJSON, text)
		}
		var line map[string]any
		if err := json.Unmarshal(out.Bytes(), &line); (err == nil) != asJSON {
			t.Errorf("as JSON %v: %v", asJSON, err)
		}
		if asJSON && (line["msg"] != "a message" || line["n"] != 5.0 || line["level"] != "INFO") {
			t.Errorf("%v", line)
		}
	}
}
