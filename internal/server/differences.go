package server

import (
	"log/slog"
	"slices"
	"time"

	"github.com/daypass/daypass/internal/fleet"
)

// grace is how long servers may differ before a warning, because a rollout takes a while.
const grace = 5 * time.Minute

// differences remembers how long the servers have differed, by subject. It is for one
// goroutine.
type differences struct {
	since map[string]time.Time // by subject, monotonic
	told  map[string]bool
}

// look warns once about each difference that lasts longer than grace.
func (d *differences) look(log *slog.Logger, found map[string]string) {
	if d.since == nil {
		d.since, d.told = map[string]time.Time{}, map[string]bool{}
	}
	for _, subject := range fleet.Subjects {
		text, differ := found[subject]
		switch {
		case !differ:
			if d.told[subject] {
				log.Info("the servers are alike again", "about", subject)
			}
			delete(d.since, subject)
			delete(d.told, subject)
		case d.since[subject].IsZero():
			d.since[subject] = time.Now()
		case !d.told[subject] && time.Since(d.since[subject]) >= grace:
			d.told[subject] = true
			log.Warn("the servers differ; `daypass servers` shows each", "about", subject, "difference", text)
		}
	}
}

// differing lists the subjects in which the servers differ now.
func (s *service) differing() (warnings []string) {
	if s.member == nil {
		return nil
	}
	for subject, text := range fleet.Differences(s.member.Servers()) {
		warnings = append(warnings, "the servers differ in "+subject+": "+text)
	}
	slices.Sort(warnings)
	return warnings
}

// stats are read at each scrape: how many servers there are, and in which subjects they
// differ.
func (m *member) stats() (servers int, differ map[string]bool) {
	list := m.Servers()
	found := fleet.Differences(list)
	differ = make(map[string]bool, len(fleet.Subjects))
	for _, subject := range fleet.Subjects {
		_, differ[subject] = found[subject]
	}
	return len(list), differ
}
