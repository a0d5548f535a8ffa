package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/daypass/daypass/internal/fleet"
	"github.com/daypass/daypass/internal/keyring"
	"github.com/daypass/daypass/internal/server"
)

// verifier returns the verifier of credentials for the keys that the flags name.
func (f *keyringFlags) verifier(ctx context.Context, env environment) (*keyring.Verifier, error) {
	source, err := f.open(ctx, env)
	if err != nil {
		return nil, err
	}
	defer source.close()
	if source.shared != nil {
		return source.shared.Verifier(ctx)
	}
	return source.file.Current().Verifier(), nil
}

// listSharedKeys lists the keys of all servers.
func listSharedKeys(ctx context.Context, env environment, shared *server.Keys, output string) error {
	keys, err := shared.Keys(ctx)
	if err != nil {
		return err
	}
	if output == "json" {
		type key struct {
			Purpose   keyring.Purpose `json:"purpose"`
			ID        string          `json:"key"`
			Server    string          `json:"server,omitempty"`
			State     string          `json:"state"`
			Active    time.Time       `json:"active_from"`
			Until     *time.Time      `json:"refused_from"`
			PublicKey string          `json:"public_key,omitempty"` // Ed25519, hexadecimal
		}
		list := make([]key, 0, len(keys))
		for _, k := range keys {
			one := key{k.Purpose, k.ID, k.Server, stateOf(k), k.Active, nil, hex.EncodeToString(k.Public)}
			if !k.Until.IsZero() {
				one.Until = &k.Until
			}
			list = append(list, one)
		}
		return writeIndented(env.stdout, list)
	}
	var t table
	t.add("PURPOSE", "KEY", "SERVER", "STATE", "SINCE", "REFUSED FROM")
	for _, k := range keys {
		owner, since, until := k.Server, "-", "-"
		if owner == "" {
			owner = "all"
		}
		if !k.Active.IsZero() {
			since = k.Active.UTC().Format(time.RFC3339)
		}
		if !k.Until.IsZero() {
			until = k.Until.UTC().Format(time.RFC3339)
		}
		t.add(string(k.Purpose), k.ID, owner, stateOf(k), since, until)
	}
	return t.write(env.stdout, env.columns)
}

func stateOf(k fleet.Key) string {
	if k.Revoked {
		return "revoked"
	}
	return string(k.State)
}

const (
	// rotationPatience limits how long the command waits for a rotation. It is longer than the
	// time for which a dead server still counts as alive.
	rotationPatience = 30 * time.Second
	rotationInterval = 250 * time.Millisecond
)

func rotateSharedKeys(ctx context.Context, env environment, shared *server.Keys, r fleet.Rotation) error {
	if err := shared.Rotate(ctx, r); err != nil {
		return err
	}
	return followRotation(ctx, env, shared)
}

// followRotation waits until every server signs with valid new keys, and names the servers that
// do not.
func followRotation(ctx context.Context, env environment, shared *server.Keys) error {
	limited, cancel := context.WithTimeout(ctx, rotationPatience)
	defer cancel()
	for {
		late, servers, err := shared.Settled(ctx)
		switch {
		case err != nil:
			return err
		case len(late) == 0 && servers == 0:
			_, err := fmt.Fprintln(env.stdout, "No server is running: the next one to start uses new keys.")
			return err
		case len(late) == 0:
			_, err := fmt.Fprintf(env.stdout, "All %d servers use new keys. `daypass keys list` shows them.\n", servers)
			return err
		}
		select {
		case <-limited.Done():
			return fmt.Errorf("after %v these servers do not use new keys yet: %s; they go on with the old ones, and change over when every server has answered: "+
				"look at their logs, or stop them", rotationPatience, strings.Join(late, ", "))
		case <-time.After(rotationInterval):
		}
	}
}

func newKeysRevokeCommand(env environment) *cobra.Command {
	var from keyringFlags
	cmd := &cobra.Command{
		Use:   "revoke KEY|SERVER",
		Short: "Refuse what one server's key has signed",
		Long: `Revokes one signing key, or all signing keys of one server: what they signed is
refused everywhere within a second, and a server that runs makes itself a new key.
The other servers' credentials stay good. It is for servers that share keys, with
root_key in the configuration.

A server that someone may have broken into has read the root key too: stop it, and
replace the root key (docs/several-servers.md, "Replace the root key").`,
		Example: `  daypass keys revoke 6f1c0b5d1e0a9c44
  daypass keys revoke db1-k3v9zq --config /etc/daypass/daypass.yaml`,
		Args: words(1, 1, "name one key or one server, as daypass keys list shows them"),
		RunE: func(cmd *cobra.Command, args []string) error {
			source, err := from.open(cmd.Context(), env)
			if err != nil {
				return err
			}
			defer source.close()
			if source.shared == nil {
				return fmt.Errorf("%s is a keyring file, whose keys are one server's: `daypass keys rotate --discard` replaces them", source.path)
			}
			ids, err := source.shared.Revoke(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			for _, id := range ids {
				fmt.Fprintf(env.stdout, "%s is revoked: what it signed is refused.\n", id)
			}
			return nil
		},
	}
	from.register(cmd.Flags())
	return cmd
}

func newKeysMoveCommand(env environment) *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "move",
		Short: "Take the keys of a keyring file along to etcd",
		Long: `Puts the keys of keyring.json in the data directory into the registry.etcd of the
configuration, sealed under its root_key, for servers that share keys from then on.
No credential and no session token is lost: servers that still have the file and
servers that do not check one another's.

Afterwards give each server the root_key and restart it, one after the other. Once
all have it, "daypass keys rotate" gives each a key of its own.`,
		Example: `  daypass keys move --config /etc/daypass/daypass.yaml`,
		Args:    noWords,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfigWithoutSecrets(path)
			if err != nil {
				return err
			}
			if cfg.RootKey == nil {
				return fmt.Errorf("%s has no root_key: add one, and registry.etcd, before the keys are moved there", path)
			}
			file, err := openKeyringFile(cfg.Keyring)
			if err != nil {
				return err
			}
			shared, err := server.OpenKeys(cmd.Context(), cfg, env.now)
			if err != nil {
				return err
			}
			defer shared.Close()
			if err := shared.Move(cmd.Context(), file.Current()); err != nil {
				return err
			}
			_, err = fmt.Fprintf(env.stdout, `The keys of %s are in etcd, sealed under the root key.

Next: restart each server with this root_key, one after the other; then run
daypass keys rotate, and remove %s from every machine.
`, cfg.Keyring, filepath.Base(cfg.Keyring))
			return err
		},
	}
	registerConfig(cmd.Flags(), &path)
	return cmd
}
