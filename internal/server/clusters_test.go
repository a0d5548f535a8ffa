package server

import (
	"log/slog"
	"testing"
	"time"

	"github.com/daypass/daypass/internal/config"
	"github.com/daypass/daypass/internal/keyring"
)

// TestLimitsKeepConnections: other limits are no reason to make the administrative
// connections anew, and what is in force is not changed under the gateway's hands.
func TestLimitsKeepConnections(t *testing.T) {
	configOf := func(line string) *config.Config {
		return parse(t, smallConfig+"clusters:\n  - identifier: east\n    "+line+"\n")
	}
	now := time.Now
	opts, keys := Options{Log: slog.New(slog.DiscardHandler), Now: now}, keyring.New(now())
	before := newClusters(nil, configOf("session_limits: {max: 3}"), keys, opts, observers{})
	defer func() { before.close(nil) }()
	old, _ := before.find("east")
	after := newClusters(before, configOf("session_limits: {max: 5, idle: 1h}"), keys, opts, observers{})
	before.close(after)
	next, _ := after.find("east")
	if next.Admin != old.Admin || next.MaxSessions != 5 || next.SessionLimits.Idle != time.Hour || old.MaxSessions != 3 {
		t.Errorf("before %+v, after %+v", old, next)
	}
	same, _ := newClusters(after, configOf("session_limits: {max: 5, idle: 1h}"), keys, opts, observers{}).find("east")
	if same != next {
		t.Error("the same configuration makes another cluster")
	}
}
