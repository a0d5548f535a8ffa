package config

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/session"
)

// clusterConfigWith returns the configuration of one cluster that contains this line.
func clusterConfigWith(line string) string {
	return strings.Join([]string{
		`account: "123456789012"`, "region: us-east-1", "data: data",
		"api: {listen: 127.0.0.1:0}", "gateway: {listen: 127.0.0.1:0}",
		"clusters:", "  - identifier: east", "    " + line, "",
	}, "\n")
}

func TestSessionLimits(t *testing.T) {
	for _, row := range []struct {
		line string
		want SessionLimits
	}{
		{"database: dev", SessionLimits{}},
		{"session_limits: {max: 100, per_user: 5}", SessionLimits{Max: 100, PerUser: 5, Limits: session.Limits{Notice: 5 * time.Minute}}},
		{"session_limits: {idle: 30m, total: 12h, end_at_expiry: true, notice: 0}",
			SessionLimits{Limits: session.Limits{Idle: 30 * time.Minute, Total: 12 * time.Hour, AtExpiry: true}}},
		{"session_limits: {end_at_expiry: true, notice: 90}", SessionLimits{Limits: session.Limits{AtExpiry: true, Notice: 90 * time.Second}}},
	} {
		c, err := Parse("daypass.yaml", []byte(clusterConfigWith(row.line)), testEnvironment)
		if err != nil {
			t.Errorf("%s: %v", row.line, err)
		} else if got := c.Clusters[0].Sessions; got != row.want {
			t.Errorf("%s: %+v, want %+v", row.line, got, row.want)
		}
	}
	for _, row := range []struct{ line, want string }{
		{"session_limits: {}", "session_limits: is empty"},
		{"session_limits:", "session_limits: has no value"},
		{"session_limits: 5", "clusters[0].session_limits: is a single value, want a mapping"},
		{"session_limits: {max: 0}", "session_limits.max: is \"0\""},
		{"session_limits: {per_user: many}", "session_limits.per_user: is \"many\""},
		{"session_limits: {idle: 10ms}", "session_limits.idle: is \"10ms\""},
		{"session_limits: {total: forever}", "session_limits.total: is \"forever\""},
		{"session_limits: {end_at_expiry: 1}", "want true or false"},
		{"session_limits: {notice: 1m, idle: 1h}", "has nothing to tell without total or end_at_expiry"},
		{"session_limits: {peruser: 5}", "did you mean per_user?"},
	} {
		_, err := Parse("daypass.yaml", []byte(clusterConfigWith(row.line)), testEnvironment)
		if err == nil || !strings.Contains(err.Error(), row.want) || !strings.Contains(err.Error(), "daypass.yaml:8: ") {
			t.Errorf("%s: %v, want line 8 and %q", row.line, err, row.want)
		}
	}
}

func TestRemovePasswords(t *testing.T) {
	for line, want := range map[string]dbuser.PasswordRemoval{
		"database: dev": dbuser.RemoveAutoCreated, "remove_passwords: autocreated": dbuser.RemoveAutoCreated,
		"remove_passwords: all": dbuser.RemoveAllPasswords, "remove_passwords: none": dbuser.RemoveNoPasswords,
	} {
		c, err := Parse("daypass.yaml", []byte(clusterConfigWith(line)), testEnvironment)
		if err != nil || c.Clusters[0].RemovePasswords != want {
			t.Errorf("%s: %+v, %v, want %v", line, c, err, want)
		}
	}
	for _, line := range []string{"remove_passwords: true", "remove_passwords: All", "remove_passwords: [all]"} {
		if _, err := Parse("daypass.yaml", []byte(clusterConfigWith(line)), testEnvironment); err == nil || !strings.Contains(err.Error(), "remove_passwords: is ") {
			t.Errorf("%s: %v, want an error", line, err)
		}
	}
}

func TestPrewarm(t *testing.T) {
	for line, want := range map[string]int{"database: dev": 0, "prewarm: {max: 4}": 4, "prewarm: {max: 0}": 0} {
		c, err := Parse("daypass.yaml", []byte(clusterConfigWith(line)), testEnvironment)
		if err != nil || c.Clusters[0].Prewarm != want {
			t.Errorf("%s: %+v, %v, want %d", line, c, err, want)
		}
	}
	for line, want := range map[string]string{
		"prewarm: {}": "prewarm: is empty", "prewarm: {max: -1}": `prewarm.max: is "-1"`, "prewarm: {most: 4}": "is not a key",
	} {
		if _, err := Parse("daypass.yaml", []byte(clusterConfigWith(line)), testEnvironment); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", line, err, want)
		}
	}
}

func TestParkedSessions(t *testing.T) {
	for line, want := range map[string]session.Parking{
		"database: dev":                                {},
		"parked_sessions: {max: 4}":                    {Max: 4, Idle: 30 * time.Second, Age: 10 * time.Minute},
		"parked_sessions: {max: 2, idle: 5s, age: 1h}": {Max: 2, Idle: 5 * time.Second, Age: time.Hour},
	} {
		c, err := Parse("daypass.yaml", []byte(clusterConfigWith(line)), testEnvironment)
		if err != nil || c.Clusters[0].Parking != want {
			t.Errorf("%s: %+v, %v, want %+v", line, c, err, want)
		}
	}
	for line, want := range map[string]string{
		"parked_sessions: {}": "parked_sessions: is empty", "parked_sessions: {max: 1, idle: 0s}": "parked_sessions.idle", "parked_sessions: {number: 4}": "is not a key",
	} {
		if _, err := Parse("daypass.yaml", []byte(clusterConfigWith(line)), testEnvironment); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", line, err, want)
		}
	}
}

// TestAdministrationHasEverySetting: Administration fills in every field of dbuser.Config, except
// those that a server fills in. A setting that it left out would be ignored without an error.
func TestAdministrationHasEverySetting(t *testing.T) {
	c, err := Parse(wholeSite(t), []byte(whole), wholeEnvironment)
	if err != nil {
		t.Fatal(err)
	}
	east := c.Clusters[0]
	east.ReadPassword = c.Clusters[1].ReadPassword // a cluster has only one source for its password
	east.TargetSessionAttrs = "primary"
	server := []string{"Key", "MaxConns", "Timeout", "Now", "Log", "Observe"} // filled in by a server
	got := reflect.ValueOf(east.Administration())
	for i := range got.NumField() {
		name := got.Type().Field(i).Name
		if got.Field(i).IsZero() != slices.Contains(server, name) {
			t.Errorf("dbuser.Config.%s = %v from a cluster with every setting", name, got.Field(i))
		}
	}
}
