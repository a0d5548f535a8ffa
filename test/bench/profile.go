package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// profiled takes a CPU profile of the server during each figure's first measurement of Daypass.
// It modifies the figure's targets.
func (s *server) profiled(o options, f figure) {
	for i := range f.targets {
		t := &f.targets[i]
		if t.name != daypass || t.spent == nil {
			continue
		}
		measure, first := t.measure, true
		t.measure = func(ctx context.Context, spent cpuTime) (measurement, error) {
			if !first {
				return measure(ctx, spent)
			}
			first = false
			done := make(chan error, 1)
			go func() { done <- s.profile(ctx, o, f.title) }()
			m, err := measure(ctx, spent)
			if problem := <-done; err == nil {
				err = problem
			}
			return m, err
		}
	}
}

// profile takes a CPU profile that covers most of a measurement.
func (s *server) profile(ctx context.Context, o options, title string) error {
	seconds := max(1, int(o.duration/time.Second)-1)
	request, err := http.NewRequestWithContext(ctx, "GET", fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", s.admin, seconds), nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("taking a profile: %w", err)
	}
	defer response.Body.Close()
	if err := os.MkdirAll(o.profiles, 0o755); err != nil {
		return err
	}
	path := filepath.Join(o.profiles, strings.Map(func(r rune) rune {
		if strings.ContainsRune(" ,/", r) {
			return '-'
		}
		return r
	}, title)+".pprof")
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer file.Close()
	if _, err := io.Copy(file, response.Body); err != nil {
		return err
	}
	progress("profile written to %s", path)
	return file.Close()
}
