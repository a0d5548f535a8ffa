package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// report is the report of a whole run.
type report struct {
	options
	began    time.Time
	took     time.Duration
	machine  machine
	versions []string
	results  []*result
	growth   *growth // nil: not measured
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

// marks returns the two lines in the document between which write puts the results of a kind of
// machine. The text outside them is written by hand.
func marks(kind string) (begin, end []byte) {
	return fmt.Appendf(nil, "<!-- begin: written by make bench-peers where page faults are %s -->\n", kind),
		fmt.Appendf(nil, "<!-- end: written by make bench-peers where page faults are %s -->\n", kind)
}

// write replaces the text between the file's marks for this kind of machine.
func (r *report) write(name string) error {
	text, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	begin, end := marks(r.machine.kind())
	markdown := r.markdown
	if r.growth != nil {
		begin, end = growthMarks(r.growth.major)
		markdown = r.growthMarkdown
	}
	before, rest, ok := bytes.Cut(text, begin)
	_, after, ok2 := bytes.Cut(rest, end)
	if !ok || !ok2 {
		return fmt.Errorf("%s does not have the marks between which the results go: %s", name, bytes.TrimSpace(begin))
	}
	var b bytes.Buffer
	b.Write(before)
	b.Write(begin)
	markdown(&b)
	b.Write(end)
	b.Write(after)
	return os.WriteFile(name, b.Bytes(), 0o644) // #nosec G306 -- a document
}

func (r *report) markdown(b *bytes.Buffer) {
	fmt.Fprintf(b, "\n%s, %s. %s.\n%s\n%s\n", r.began.UTC().Format("2 January 2006"), strings.Join(r.versions, ", "), r.machine.model, r.machine.costs(), r.machine.quiet())
	fmt.Fprintf(b, "%d rounds of %v, each target warm; %d MB for each COPY; %d idle sessions. The run took %v.", r.rounds, r.duration, r.megabytes, r.idle, r.took.Round(time.Second))
	if r.note != "" {
		fmt.Fprintf(b, " %s", r.note)
	}
	b.WriteString("\n\n| figure | at least | aim | measured | reached |\n| --- | --- | --- | --- | --- |\n")
	for _, g := range goals() {
		measured, verdict := "not measured", "-"
		if v, ok := g.value(r.results); ok {
			measured, verdict = g.format(v), g.verdict(v)
		} else if g.growth && !slices.Contains(r.only, "scale") {
			continue
		}
		fmt.Fprintf(b, "| %s | %s | %s | %s | %s |\n", g.name, g.format(g.least), g.format(g.aim), measured, verdict)
	}
	b.WriteString("\nThe medians behind them. A ratio is to the first line, and the median of the rounds' ratios; CPU is that of the named\n" +
		"process for one unit (a credential, a logon, a transaction, a GB). For transactions p50 is pgbench's\n" +
		"mean; \"cold\" is the second after all sessions are open, in which backends that were just started run slowly,\n" +
		"and what PgBouncer keeps for the next client is warm already. All other columns are taken once all are warm.\n")
	for _, result := range r.results {
		writeTable(b, result.table())
	}
	b.WriteString("\n")
}
