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
