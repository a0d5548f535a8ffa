package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/daypass/daypass/internal/clustercheck"
	"github.com/daypass/daypass/internal/config"
)

// atOnce is how many clusters are checked at a time. Those that do not answer would otherwise make
// the report last for minutes.
const atOnce = 8

// clusters counts the findings of "cluster check". The findings themselves name roles, so they are
// not reported, only their codes.
func (o *Operator) clusters(ctx context.Context, r *Report, cfg *config.Config) {
	type result struct {
		report clustercheck.Report
		err    error
	}
	results := make([]chan result, len(cfg.Clusters))
	places := make(chan struct{}, atOnce)
	var all sync.WaitGroup
	defer all.Wait()
	for i, cluster := range cfg.Clusters {
		results[i] = make(chan result, 1)
		all.Go(func() {
			places <- struct{}{}
			defer func() { <-places }()
			ctx, cancel := context.WithTimeout(ctx, 2*patience)
			defer cancel()
			report, err := o.Check(ctx, cluster)
			results[i] <- result{report, err}
		})
	}
	for i, cluster := range cfg.Clusters {
		got := <-results[i]
		r.cluster(cluster.Identifier, got.report, got.err)
	}
}

func (r *Report) cluster(identifier string, report clustercheck.Report, err error) {
	const about = "clusters"
	do := "run daypass cluster check " + identifier
	count := map[clustercheck.Severity]int{}
	codes := map[clustercheck.Severity][]string{}
	for _, finding := range report.Findings {
		count[finding.Severity]++
		if !slices.Contains(codes[finding.Severity], finding.Code) {
			codes[finding.Severity] = append(codes[finding.Severity], finding.Code)
		}
	}
	says := func(severity clustercheck.Severity, word string) string {
		if count[severity] == 0 {
			return fmt.Sprintf("no %ss", word)
		}
		text := fmt.Sprintf("%d %ss", count[severity], word)
		if count[severity] == 1 {
			text = "1 " + word
		}
		return text + " (" + strings.Join(codes[severity], ", ") + ")"
	}
	found := says(clustercheck.Broken, "error") + ", " + says(clustercheck.Warning, "warning")
	switch {
	case err != nil:
		r.fail(about, do, "%s: the check broke off: %s", identifier, plainly(err))
	case report.Broken():
		r.fail(about, do, "%s: logons do not work, or not all: %s", identifier, found)
	case count[clustercheck.Warning] > 0:
		r.warn(about, do, "%s: daypass cluster check finds %s", identifier, found)
	default:
		r.ok(about, "%s: daypass cluster check finds no errors", identifier)
	}
	for _, h := range report.Hosts {
		if h.Problem != "" {
			r.warn(about, h.Do+", or take it out of upstream", "%s: host %s is %s: %s", identifier, h.Address, h.State, h.Problem)
		} else {
			r.ok(about, "%s: host %s answers (%s)", identifier, h.Address, h.State)
		}
	}
	if report.Clock != nil {
		r.clock("the server of "+identifier, *report.Clock, report.Asked)
	}
}
