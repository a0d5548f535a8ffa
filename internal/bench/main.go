// Command bench measures Daypass against what stands beside it in the same run:
// a fixed answer of net/http for issuing, a direct connection to PostgreSQL for
// logons and transactions.
//
// Every round visits every target in turn, so that the drift of a machine hits
// all alike; what is printed are medians over the rounds and ratios. Ratios
// travel between machines, rates do not.
//
//	scripts/bench            builds the binary and runs all of it
//	scripts/bench -rounds 3 -seconds 2 -only issue,logon,tps
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if len(os.Args) > 1 && os.Args[1] == "hello" {
		exit(hello(ctx))
	}
	var o options
	flag.StringVar(&o.daypass, "daypass", "bin/daypass", "the binary to measure")
	flag.StringVar(&o.postgres, "postgres", "", "directory of PostgreSQL's programs; left out, the newest installed")
	flag.IntVar(&o.rounds, "rounds", 5, "rounds, each of which visits every target")
	flag.DurationVar(&o.duration, "seconds", 3*time.Second, "time of one measurement")
	flag.IntVar(&o.clients, "clients", 8, "connections at a time")
	only := flag.String("only", "issue,logon,tps", "what to measure, separated by commas")
	flag.Parse()
	o.only = strings.Split(*only, ",")
	exit(bench(ctx, o))
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

type options struct {
	daypass, postgres string
	rounds, clients   int
	duration          time.Duration
	only              []string
}

// measurement is one target's figures in one round.
type measurement struct {
	rate     float64       // units per second
	p50, p99 time.Duration // zero where the program does not say
	cpu      time.Duration // of the process measured, for one unit
}

// target is one of the things compared; the first of a figure is what the
// others are compared with.
type target struct {
	name    string
	pid     int // whose CPU time is counted; 0: none
	measure func(context.Context) (measurement, int, error)
}

type figure struct {
	key, title, unit string
	targets          []target
}

func bench(ctx context.Context, o options) error {
	progress("starting PostgreSQL, Daypass and the fixed answer")
	stack, err := startStack(ctx, o)
	if err != nil {
		return err
	}
	defer stack.stop()
	fmt.Printf("%s; %s; %d rounds of %v, %d clients; medians\n", stack.postgres.Installation().Version, machine(), o.rounds, o.duration, o.clients)
	for _, f := range stack.figures(o) {
		if !slices.Contains(o.only, f.key) {
			continue
		}
		if err := f.run(ctx, o.rounds); err != nil {
			return fmt.Errorf("%s: %w", f.title, err)
		}
	}
	return nil
}

func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "bench: "+format+"\n", args...)
}

// run measures every target in every round and prints the medians.
func (f figure) run(ctx context.Context, rounds int) error {
	got := make([][]measurement, len(f.targets))
	for round := range rounds {
		for i, t := range f.targets {
			progress("%s, round %d of %d: %s", f.title, round+1, rounds, t.name)
			before := cpuTime(t.pid)
			m, units, err := t.measure(ctx)
			if err != nil {
				return fmt.Errorf("%s: %w", t.name, err)
			}
			if units > 0 && t.pid != 0 {
				m.cpu = (cpuTime(t.pid) - before) / time.Duration(units)
			}
			got[i] = append(got[i], m)
		}
	}
	fmt.Printf("\n%s\n", f.title)
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "target\t%s\tratio\tp50\tp99\tCPU each\t\n", f.unit)
	base := median(got[0], func(m measurement) float64 { return m.rate })
	for i, t := range f.targets {
		rate := median(got[i], func(m measurement) float64 { return m.rate })
		duration := func(pick func(measurement) time.Duration) string {
			d := time.Duration(median(got[i], func(m measurement) float64 { return float64(pick(m)) }))
			if d == 0 {
				return "-"
			}
			return d.Round(time.Microsecond).String()
		}
		fmt.Fprintf(w, "%s\t%.0f\t%.2f\t%s\t%s\t%s\t\n", t.name, rate, rate/base,
			duration(func(m measurement) time.Duration { return m.p50 }),
			duration(func(m measurement) time.Duration { return m.p99 }),
			duration(func(m measurement) time.Duration { return m.cpu }))
	}
	return w.Flush()
}

func median(list []measurement, pick func(measurement) float64) float64 {
	values := make([]float64, len(list))
	for i, m := range list {
		values[i] = pick(m)
	}
	slices.Sort(values)
	n := len(values)
	if n%2 == 1 {
		return values[n/2]
	}
	return (values[n/2-1] + values[n/2]) / 2
}
