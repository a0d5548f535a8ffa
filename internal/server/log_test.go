package server_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/daypass/daypass/internal/credential"
	"github.com/daypass/daypass/internal/keyring"
	"github.com/daypass/daypass/internal/server"
)

// TestLog: both formats have the same content, and neither contains a password.
func TestLog(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	password, err := credential.Mint(keyring.New(now), credential.Grant{ID: credential.NewID(), Cluster: "c", DBUser: "alice", IssuedAt: now, NotAfter: now.Add(time.Hour), Principal: "p"})
	if err != nil {
		t.Fatal(err)
	}
	for _, asJSON := range []bool{false, true} {
		var out bytes.Buffer
		log := server.NewLog(&out, slog.LevelInfo, asJSON)
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
