package server

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestServeFaultsNameFileLineAndKey: faults of the configuration that only the start can find
// are reported with file, line and key too.
func TestServeFaultsNameFileLineAndKey(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "plain")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	base := strings.Replace(smallConfig, "./data", filepath.Join(dir, "data"), 1)
	for name, row := range map[string]struct{ old, new, want string }{
		"data is a file":  {filepath.Join(dir, "data"), file, "f.yaml:3: data: "},
		"api address":     {`api: {listen: "127.0.0.1:0"`, "api: {listen: " + taken.Addr().String(), "f.yaml:4: api.listen: "},
		"gateway address": {`gateway: {listen: "127.0.0.1:0"`, "gateway: {listen: " + taken.Addr().String(), "f.yaml:5: gateway.listen: "},
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.Replace(base, row.old, row.new, 1)
			cfg := parse(t, text)
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			err := Run(ctx, cfg, Options{Log: slog.New(slog.DiscardHandler), Now: time.Now})
			if err == nil || !strings.HasPrefix(err.Error(), row.want) {
				t.Errorf("serve = %v, want %q in front", err, row.want)
			}
		})
	}
}

// TestTakenAddressMakesNothing: a server that cannot have an address makes no data directory, nor
// keys in one that is there. A second server with the same configuration is told of the first.
func TestTakenAddressMakesNothing(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	serve := func(t *testing.T, text string) error {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		return Run(ctx, parse(t, text), Options{Log: slog.New(slog.DiscardHandler), Now: time.Now})
	}
	address := taken.Addr().String()
	for key, row := range map[string]struct{ old, new string }{
		"api.listen":     {`api: {listen: "127.0.0.1:0"`, "api: {listen: " + address},
		"gateway.listen": {`gateway: {listen: "127.0.0.1:0"`, "gateway: {listen: " + address},
		"admin.listen":   {"api: ", "admin: {listen: " + address + "}\napi: "},
		"metrics.listen": {"api: ", "metrics: {listen: " + address + "}\napi: "},
	} {
		t.Run(key, func(t *testing.T) {
			data := filepath.Join(t.TempDir(), "data")
			text := strings.Replace(strings.Replace(smallConfig, "./data", data, 1), row.old, row.new, 1)
			if err := serve(t, text); err == nil || !strings.Contains(err.Error(), key) {
				t.Fatalf("serve = %v, want a fault of %s", err, key)
			}
			if _, err := os.Lstat(data); !os.IsNotExist(err) {
				t.Errorf("the data directory was made: %v", err)
			}
			if err := os.Mkdir(data, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := serve(t, text); err == nil || !strings.Contains(err.Error(), key) {
				t.Fatalf("serve = %v, want a fault of %s", err, key)
			}
			left, err := os.ReadDir(data)
			if err != nil || len(left) != 1 || left[0].Name() != "lock" {
				t.Errorf("in the data directory: %v, %v, want the lock alone", left, err)
			}
			first, err := openDataDir(data, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			defer first.close()
			if err := serve(t, text); err == nil || !strings.Contains(err.Error(), "is in use by process") {
				t.Errorf("serve = %v, want the process that uses the directory", err)
			}
		})
	}
}
