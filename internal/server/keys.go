package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"time"

	"github.com/daypass/daypass/internal/config"
	"github.com/daypass/daypass/internal/filemode"
	"github.com/daypass/daypass/internal/keyring"
)

// keySource provides a server's keys, from a file or from the fleet.
type keySource interface {
	Current() *keyring.Keyring
	// Err returns why the keys in force may not be the latest, or nil.
	Err() error
}

const (
	// rootTimeout bounds how long the program that prints the root key may take, and maxRoot
	// how much it may print.
	rootTimeout = 30 * time.Second
	maxRoot     = 4 << 10
)

// readRoot reads the root key from the configured source.
func readRoot(ctx context.Context, cfg *config.Config) (*keyring.Roots, error) {
	if cfg.RootKey.File != "" {
		roots, err := readRootFile(cfg.RootKey.File)
		if err != nil {
			return nil, cfg.Fault("root_key.file", err)
		}
		return roots, nil
	}
	roots, err := runRootCommand(ctx, cfg.RootKey.Command)
	if err != nil {
		return nil, cfg.Fault("root_key.command", err)
	}
	return roots, nil
}

func readRootFile(path string) (*keyring.Roots, error) {
	text, info, err := filemode.ReadRegular(path, maxRoot)
	if err != nil {
		return nil, err
	}
	if fault := filemode.Check(path, info, filemode.Private); fault != nil {
		return nil, fault
	}
	roots, err := keyring.ParseRoots(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return roots, nil
}

func runRootCommand(ctx context.Context, command []string) (*keyring.Roots, error) {
	limited, cancel := context.WithTimeout(ctx, rootTimeout)
	defer cancel()
	run := exec.CommandContext(limited, command[0], command[1:]...)
	asGroup(run)
	// Programs in other groups may keep the pipe open. A busy machine may take a second to read
	// what the program has printed.
	run.WaitDelay = 5 * time.Second
	var output, complaint capped
	run.Stdout, run.Stderr = &output, &complaint
	err := run.Run()
	switch {
	case limited.Err() != nil && ctx.Err() == nil:
		return nil, fmt.Errorf("%s has not ended within %v", command[0], rootTimeout)
	case err != nil:
		said, _, _ := strings.Cut(strings.TrimSpace(complaint.String()), "\n")
		if said != "" {
			err = fmt.Errorf("%w: %s", err, rootKeys.ReplaceAllString(keyring.Redact(said), "[redacted]"))
		}
		return nil, fmt.Errorf("%s: %w", command[0], err)
	}
	roots, err := keyring.ParseRoots(output.Bytes())
	if err != nil {
		return nil, fmt.Errorf("what %s prints: %w", command[0], err)
	}
	return roots, nil
}

// rootKeys matches text that may be a root key in the output of a program, such as a script
// that traces its commands.
var rootKeys = regexp.MustCompile(`[0-9A-Za-z+/]{43}=|[0-9A-Fa-f]{64}`)

// capped keeps the beginning of the data that is written to it.
type capped struct{ bytes.Buffer }

func (c *capped) Write(p []byte) (int, error) {
	if left := maxRoot - c.Len(); left > 0 {
		c.Buffer.Write(p[:min(left, len(p))])
	}
	return len(p), nil
}

// openKeysFile opens the keyring file of a server that shares no keys.
func openKeysFile(cfg *config.Config, now time.Time) (*keyring.File, error) {
	file, err := keyring.OpenFile(cfg.Keyring, now)
	if err != nil {
		return nil, cfg.Fault("data", fmt.Errorf("opening the keyring: %w", err))
	}
	return file, nil
}

// legacyKeyring returns the path of a configuration's keyring file, or "" if there is none.
func legacyKeyring(cfg *config.Config) string {
	if _, err := os.Stat(cfg.Keyring); errors.Is(err, os.ErrNotExist) {
		return ""
	}
	return cfg.Keyring
}
