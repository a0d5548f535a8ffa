package main

import (
	"bytes"
	"context"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/daypass/daypass/test/sitetest"
)

// start runs a program and writes its output to a file in dir.
func start(dir, program string, env []string, args ...string) (*sitetest.Process, error) {
	log, err := os.OpenFile(filepath.Join(dir, filepath.Base(program)+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	return sitetest.Run(log, env, program, args...)
}

// hello serves the lower bound for the API: net/http with a fixed answer of the same size.
func hello(ctx context.Context) error {
	answer := bytes.Repeat([]byte("x"), 700)
	server := &http.Server{Addr: os.Args[2], ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/xml")
		_, _ = w.Write(answer)
	})}
	go func() {
		<-ctx.Done()
		server.Close()
	}()
	if err := server.ListenAndServe(); err != http.ErrServerClosed {
		return err
	}
	return nil
}
