// Command bench compares Daypass with other programs in the same run. For issuing, these are
// net/http with a fixed answer, and moto; for logons, transactions and COPY, a direct connection
// and PgBouncer.
//
// Each round measures every target in turn, so that a machine's drift affects all of them alike.
// Each target warms up before the clock starts. Ratios are computed within a round, and the report
// has the median of the rounds' ratios. Ratios can be compared between machines, rates cannot.
// Clients, servers and PostgreSQL share the CPUs of one machine.
//
//	scripts/bench                      builds the binary and measures without PgBouncer and moto
//	scripts/bench-peers                measures PgBouncer and moto, too
//	scripts/bench -only issue,logon -rounds 3 -seconds 1s
//	scripts/bench-peers -write docs/performance.md
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
	flag.BoolVar(&o.peers, "peers", false, "measure PgBouncer and moto too")
	flag.StringVar(&o.pgbouncer, "pgbouncer", "", "the pgbouncer program; left out, looked for in PATH and /usr/sbin")
	flag.StringVar(&o.moto, "moto", "", "the moto_server program; left out, looked for in PATH")
	flag.IntVar(&o.rounds, "rounds", 3, "rounds, each of which visits every target")
	flag.DurationVar(&o.duration, "seconds", 2*time.Second, "time of one measurement")
	flag.DurationVar(&o.warm, "warm", 2*time.Second, "time in which the sessions of transactions warm up before they are measured; a quarter of it for the rest")
	flag.IntVar(&o.megabytes, "megabytes", 400, "what one COPY moves")
	flag.IntVar(&o.idle, "idle", 1000, "idle sessions to weigh")
	flag.StringVar(&o.profiles, "profiles", "", "directory for CPU profiles of Daypass, one for each target and its first round; what is profiled is a little slower")
	flag.StringVar(&o.write, "write", "", "file to write the results to, between its marks")
	flag.StringVar(&o.note, "note", "", "a sentence about the run for the file: how busy the machine was")
	only := flag.String("only", "", "what to measure, separated by commas: "+strings.Join(keys, ", ")+"; left out, all but scale and growth")
	flag.Parse()
	// Growth is measured by itself: -only growth, or -only scale.
	o.only = slices.DeleteFunc(slices.Clone(keys), func(key string) bool { return key == "scale" || key == "growth" })
	if *only != "" {
		o.only = strings.Split(*only, ",")
		for _, key := range o.only {
			if !slices.Contains(keys, key) {
				exit(fmt.Errorf("-only: there is no %q; there are %s", key, strings.Join(keys, ", ")))
			}
		}
	}
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
	daypass, postgres, pgbouncer, moto string
	peers                              bool
	rounds, megabytes, idle            int
	duration, warm                     time.Duration
	only                               []string
	profiles, write, note              string
}

// clients is the default number of clients at a time.
const clients = 8

func bench(ctx context.Context, o options) error {
	r := &report{options: o, began: time.Now()}
	if err := r.machine.look(ctx); err != nil {
		return fmt.Errorf("looking at the machine: %w", err)
	}
	s, err := startStack(ctx, o)
	if err != nil {
		return err
	}
	defer s.stop()
	if err := r.machine.logOn(s.small); err != nil {
		return err
	}
	r.versions = s.versions()
	fmt.Printf("%s\n%s\n%d rounds of %v\n%s\n", r.machine.model, strings.Join(r.versions, "; "), o.rounds, o.duration, r.machine.costs())
	if s.grown != nil {
		if r.growth, err = s.growth(ctx, o); err != nil {
			return fmt.Errorf("growth: %w", err)
		}
	}
	for _, f := range s.figures(o) {
		if !slices.Contains(o.only, f.key) {
			continue
		}
		if o.profiles != "" {
			s.server.profiled(o, f)
		}
		got, err := f.run(ctx, o.rounds)
		if err != nil {
			return fmt.Errorf("%s: %w", f.title, err)
		}
		r.results = append(r.results, got)
		got.print(os.Stdout)
	}
	s.stop()
	r.machine.busy[1] = busy(ctx)
	r.took = time.Since(r.began)
	r.printGoals(os.Stdout)
	fmt.Printf("%s\nThe run took %v.\n", r.machine.quiet(), r.took.Round(time.Second))
	if o.write == "" {
		return nil
	}
	return r.write(o.write)
}

func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "bench: "+format+"\n", args...)
}
