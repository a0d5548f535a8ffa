package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"
)

// report is a whole run.
type report struct {
	options
	began    time.Time
	machine  string
	versions []string
	results  []*result
}

func (r *report) printGoals(out io.Writer) {
	fmt.Fprintln(out)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "figure\tat least\taim\tmeasured\treached")
	for _, g := range goals() {
		if v, ok := g.value(r.results); ok {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", g.name, g.format(g.least), g.format(g.aim), g.format(v), g.verdict(v))
		}
	}
	w.Flush()
}

// The marks between which write puts a run. What stands outside of them is
// written by people.
const (
	beginMark = "<!-- begin: written by make bench-peers -->\n"
	endMark   = "<!-- end: written by make bench-peers -->\n"
)

// write replaces what stands between the marks of a file.
func (r *report) write(name string) error {
	text, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	before, rest, ok := bytes.Cut(text, []byte(beginMark))
	_, after, ok2 := bytes.Cut(rest, []byte(endMark))
	if !ok || !ok2 {
		return errors.New(name + " does not have the marks between which the results go")
	}
	var b bytes.Buffer
	b.Write(before)
	b.WriteString(beginMark)
	r.markdown(&b)
	b.WriteString(endMark)
	b.Write(after)
	return os.WriteFile(name, b.Bytes(), 0o644) // #nosec G306 -- a document
}

func (r *report) markdown(b *bytes.Buffer) {
	fmt.Fprintf(b, "\n%s, %s. %s.\n", r.began.UTC().Format("2 January 2006"), strings.Join(r.versions, ", "), r.machine)
	fmt.Fprintf(b, "%d rounds of %v; %d MB for each COPY; %d idle sessions. Load average at the end: %s.", r.rounds, r.duration, r.megabytes, r.idle, load())
	if r.note != "" {
		fmt.Fprintf(b, " %s", r.note)
	}
	b.WriteString("\n\n| figure | at least | aim | measured | reached |\n| --- | --- | --- | --- | --- |\n")
	for _, g := range goals() {
		measured, verdict := "not measured", "-"
		if v, ok := g.value(r.results); ok {
			measured, verdict = g.format(v), g.verdict(v)
		}
		fmt.Fprintf(b, "| %s | %s | %s | %s | %s |\n", g.name, g.format(g.least), g.format(g.aim), measured, verdict)
	}
	b.WriteString("\nThe medians behind them. A ratio is to the first line, and the median of the rounds' ratios; CPU is that of the named\n" +
		"process for one unit (a credential, a logon, a transaction, a GB). For transactions p50 is pgbench's\n" +
		"mean, and CPU is counted once all sessions are open.\n")
	for _, result := range r.results {
		table := result.table()
		b.WriteString("\n")
		for i, line := range table {
			fmt.Fprintf(b, "| %s |\n", strings.Join(line, " | "))
			if i == 0 {
				fmt.Fprintf(b, "|%s\n", strings.Repeat(" --- |", len(line)))
			}
		}
	}
	b.WriteString("\n")
}
