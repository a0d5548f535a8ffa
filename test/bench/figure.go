package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// measurement holds one target's figures in one round. Zero means not measured.
type measurement struct {
	rate     float64 // units per second
	p50, p99 time.Duration
	cpu      time.Duration // per unit, of the measured process
	memory   float64       // KiB per unit
	cold     float64       // units per second in sessions that have just been opened
}

// cpuTime returns the CPU time that a process has used so far; nil if no process is measured.
type cpuTime func() time.Duration

func (c cpuTime) now() time.Duration {
	if c == nil {
		return 0
	}
	return c()
}

// target is one of the programs that a figure compares. The table compares each with the first one.
type target struct {
	name    string
	spent   cpuTime // passed to measure
	measure func(context.Context, cpuTime) (measurement, error)
}

// figure is a quantity that is measured for several targets.
type figure struct {
	key, title, unit string
	targets          []target
	once             bool // one round is enough
}

// result holds the measurements of a figure in all rounds.
type result struct {
	figure
	rounds [][]measurement // by round, then in the order of targets
}

// run measures every target in every round.
func (f figure) run(ctx context.Context, rounds int) (*result, error) {
	if f.once {
		rounds = 1
	}
	r := &result{figure: f}
	for round := range rounds {
		got := make([]measurement, len(f.targets))
		for i, t := range f.targets {
			progress("%s, round %d of %d: %s", f.title, round+1, rounds, t.name)
			m, err := t.measure(ctx, t.spent)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", t.name, err)
			}
			got[i] = m
		}
		r.rounds = append(r.rounds, got)
	}
	return r, nil
}

// pick selects one number of a measurement.
type pick func(measurement) float64

func rate(m measurement) float64   { return m.rate }
func p50(m measurement) float64    { return m.p50.Seconds() * 1000 }
func p99(m measurement) float64    { return m.p99.Seconds() * 1000 }
func cpu(m measurement) float64    { return float64(m.cpu.Nanoseconds()) / 1000 }
func memory(m measurement) float64 { return m.memory }
func cold(m measurement) float64   { return m.cold }

func (r *result) index(name string) int {
	return slices.IndexFunc(r.targets, func(t target) bool { return t.name == name })
}

// median returns the median of a target's numbers over the rounds, or 0 if there is no such target.
func (r *result) median(name string, of pick) float64 {
	i := r.index(name)
	if i < 0 {
		return 0
	}
	values := make([]float64, 0, len(r.rounds))
	for _, round := range r.rounds {
		values = append(values, of(round[i]))
	}
	return median(values)
}

// compare applies join to two targets within each round and returns the median over the rounds.
func (r *result) compare(a, b string, of pick, join func(a, b float64) float64) (float64, bool) {
	i, j := r.index(a), r.index(b)
	if i < 0 || j < 0 {
		return 0, false
	}
	values := make([]float64, 0, len(r.rounds))
	for _, round := range r.rounds {
		values = append(values, join(of(round[i]), of(round[j])))
	}
	m := median(values)
	return m, !math.IsNaN(m) && !math.IsInf(m, 0)
}

func ratio(a, b float64) float64      { return a / b }
func difference(a, b float64) float64 { return a - b }

func median(values []float64) float64 {
	values = slices.Clone(values)
	slices.Sort(values)
	n := len(values)
	if n%2 == 1 {
		return values[n/2]
	}
	return (values[n/2-1] + values[n/2]) / 2
}

// column is a column of a result's table.
type column struct {
	head string
	of   pick
}

// columns returns the columns that were measured.
func (r *result) columns() []column {
	var list []column
	for _, c := range []column{
		{r.unit, rate}, {"cold " + r.unit, cold}, {"p50 ms", p50}, {"p99 ms", p99}, {"CPU µs", cpu}, {"KiB", memory},
	} {
		for _, t := range r.targets {
			if m := r.median(t.name, c.of); m != 0 {
				list = append(list, c)
				break
			}
		}
	}
	return list
}

// table returns the result as text: a head and one line for each target.
func (r *result) table() [][]string {
	columns := r.columns()
	head := []string{r.title}
	for _, c := range columns {
		head = append(head, c.head)
	}
	table := [][]string{append(head, "ratio")}
	for _, t := range r.targets {
		line := []string{t.name}
		for _, c := range columns {
			m := r.median(t.name, c.of)
			line = append(line, number(m))
		}
		first := "-"
		if len(columns) > 0 {
			if x, ok := r.compare(t.name, r.targets[0].name, columns[0].of, ratio); ok {
				first = fmt.Sprintf("%.2f", x)
			}
		}
		table = append(table, append(line, first))
	}
	return table
}

func (r *result) print(out io.Writer) {
	fmt.Fprintln(out)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	for _, line := range r.table() {
		fmt.Fprintln(w, strings.Join(line, "\t")+"\t")
	}
	w.Flush()
}

// number formats v with three significant digits.
func number(v float64) string {
	switch a := math.Abs(v); {
	case v == 0:
		return "-"
	case a >= 100:
		return fmt.Sprintf("%.0f", v)
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}
