package server

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/daypass/daypass/test/pgtest"
)

// TestAlerts checks with promtool that every alert fires when it should, and that none fires
// when all is well. It is skipped if promtool is not installed.
func TestAlerts(t *testing.T) {
	binary, err := exec.LookPath("promtool")
	if err != nil {
		t.Log("NOT CHECKED: there is no promtool in PATH")
		return
	}
	if out, err := exec.Command(binary, "test", "rules", "../../deploy/prometheus/alerts_test.yaml").CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestPrometheus runs a real Prometheus, which scrapes a busy server, loads the alerts and
// answers every query of the dashboard. It is skipped if Prometheus is not installed;
// TestWatching always compares the names.
func TestPrometheus(t *testing.T) {
	t.Parallel() // the test mostly waits
	binary, err := exec.LookPath("prometheus")
	if err != nil {
		t.Log("NOT CHECKED: there is no prometheus in PATH")
		return
	}
	s := newServed(t, startDatabase(t), adminListener)
	s.start()
	alerts, err := filepath.Abs("../../deploy/prometheus/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	address := freeAddress(t)
	config := filepath.Join(s.dir, "prometheus.yml")
	text := fmt.Sprintf("global: {scrape_interval: 500ms, evaluation_interval: 500ms}\nrule_files: [%q]\nscrape_configs: [{job_name: daypass, static_configs: [{targets: [%q]}]}]\n", alerts, s.where.Admin)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var log pgtest.Log
	prometheus := exec.Command(binary, "--config.file="+config, "--storage.tsdb.path="+filepath.Join(s.dir, "tsdb"), "--web.listen-address="+address)
	prometheus.Stdout, prometheus.Stderr = &log, &log
	if err := prometheus.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = prometheus.Process.Kill()
		_ = prometheus.Wait()
	}()

	// Some of every kind of work, until each rate has two points.
	work := func() {
		c := s.issue(time.Now())
		s.issueAs("bob", time.Now())
		if conn, err := s.logon(c); err == nil {
			_, _ = conn.Exec(t.Context(), "SELECT 1")
			conn.Close(t.Context())
		} else {
			t.Errorf("logging on: %v", err)
		}
		c.DbPassword += "x"
		if _, err := s.logon(c); err == nil {
			t.Error("a forgery logs on")
		}
	}
	get := func(path string, into any) bool {
		response, err := http.Get("http://" + address + path)
		if err != nil {
			return false
		}
		defer response.Body.Close()
		body, _ := io.ReadAll(response.Body)
		if response.StatusCode == 400 || response.StatusCode == 422 {
			t.Fatalf("%s: %s", path, body)
		}
		return json.Unmarshal(body, into) == nil && response.StatusCode == 200
	}
	results := func(query string) int {
		var answer struct{ Data struct{ Result []any } }
		get("/api/v1/query?query="+url.QueryEscape(query), &answer)
		return len(answer.Data.Result)
	}
	pgtest.Eventually(t, "rates in Prometheus", func() bool {
		work()
		return results(`rate(daypass_logons_total{result="ok"}[5s]) > 0`) > 0 && results(`rate(daypass_logons_total{result="forged"}[5s]) > 0`) > 0
	})

	dashboard, err := os.ReadFile("../../deploy/grafana/dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var parsed struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(dashboard, &parsed); err != nil {
		t.Fatal(err)
	}
	queries := 0
	for _, panel := range parsed.Panels {
		for _, target := range panel.Targets {
			query := strings.NewReplacer("$__rate_interval", "10s", "$instance", ".*", "$cluster", ".*").Replace(target.Expr)
			queries++
			// On a busy machine the last scrapes may be too far apart for a rate.
			pgtest.Eventually(t, fmt.Sprintf("panel %q to show something for %s", panel.Title, query), func() bool {
				shown := results(query) > 0
				if !shown {
					work()
				}
				return shown
			})
		}
	}
	var rules struct {
		Data struct {
			Groups []struct {
				Rules []struct{ Name, Health, State, LastError string }
			}
		}
	}
	evaluated := func() bool {
		if !get("/api/v1/rules", &rules) {
			return false
		}
		for _, group := range rules.Data.Groups {
			for _, rule := range group.Rules {
				if rule.Health == "unknown" {
					return false
				}
			}
		}
		return len(rules.Data.Groups) > 0
	}
	pgtest.Eventually(t, "the alerts to be evaluated", evaluated)
	count := 0
	for _, group := range rules.Data.Groups {
		for _, rule := range group.Rules {
			count++
			// These two depend on the speed of the machine, and fire after minutes.
			slow := rule.State == "pending" && slices.Contains([]string{"DaypassClusterSlow", "DaypassClusterDown"}, rule.Name)
			if rule.Health != "ok" || rule.State != "inactive" && !slow {
				t.Errorf("alert %s is %s, %s: %s", rule.Name, rule.Health, rule.State, rule.LastError)
			}
		}
	}
	t.Logf("%d queries of the dashboard have something to show; %d alerts are evaluated, and quiet", queries, count)

	// One alert has to fire.
	restore := breakAuditLog(t, s)
	s.issue(time.Now())
	pgtest.Eventually(t, "DaypassAuditLogBroken", func() bool {
		return results(`ALERTS{alertname="DaypassAuditLogBroken",alertstate="firing"}`) > 0
	})
	restore()
	if t.Failed() {
		t.Logf("Prometheus says:\n%s", log.String())
	}
}
