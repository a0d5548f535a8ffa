package server

import (
	"log/slog"
	"reflect"
	"testing"
	"time"

	"github.com/daypass/daypass/internal/config"
	"github.com/daypass/daypass/internal/keyring"
)

// TestLimitsKeepConnections: a reload that changes only limits keeps the administrative
// connections, and does not modify the cluster that the gateway is using.
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

// TestClusterHasEverySetting: newCluster fills in every setting of the gateway's cluster. A
// setting that it missed would be ignored without an error.
func TestClusterHasEverySetting(t *testing.T) {
	cfg := parse(t, smallConfig+`registry: {etcd: {endpoints: ["http://127.0.0.1:1"]}}
clusters:
  - identifier: east
    database: sales
    upstream: postgres://daypass@127.0.0.1:5432/postgres?sslmode=disable&target_session_attrs=primary
    session_limits: {scope: all, max: 100, per_user: 5, idle: 30m, total: 12h, end_at_expiry: true, notice: 1m}
    prewarm: {max: 4}
    parked_sessions: {max: 4}
`)
	made := newClusters(nil, cfg, keyring.New(time.Now()), Options{Log: slog.New(slog.DiscardHandler), Now: time.Now}, observers{})
	defer made.close(nil)
	east, _ := made.find("east")
	var walk func(path string, v reflect.Value)
	walk = func(path string, v reflect.Value) {
		for i := range v.NumField() {
			name := path + "." + v.Type().Field(i).Name
			switch field := v.Field(i); {
			case field.Kind() == reflect.Struct:
				walk(name, field)
			case field.IsZero():
				t.Errorf("%s is not set by a cluster with every setting", name)
			}
		}
	}
	walk("gateway.Cluster", reflect.ValueOf(*east))
}
