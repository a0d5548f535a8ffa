package main

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/daypass/daypass/internal/config"
	"github.com/daypass/daypass/internal/fleet"
	"github.com/daypass/daypass/internal/keyring"
	"github.com/daypass/daypass/internal/server"
)

func newKeysCommand(env environment) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "keys",
		Short: "List, rotate, revoke and move the keys that sign credentials",
		Example: `  daypass keys list
  daypass keys rotate`,
		Args: noWords,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newKeysListCommand(env), newKeysRotateCommand(env), newKeysRevokeCommand(env), newKeysMoveCommand(env))
	return cmd
}

// keyringFlags name the keyring: a data directory or a configuration.
type keyringFlags struct{ data, config string }

func (f *keyringFlags) register(flags *pflag.FlagSet) {
	flags.StringVar(&f.data, "data", "", "data directory `DIR` of the server")
	flags.StringVarP(&f.config, "config", "c", "", "the configuration `FILE`, which names the data directory (default "+defaultConfigFile+")")
}

// given reports whether a flag is set or a configuration exists in its default place.
func (f *keyringFlags) given() bool {
	if f.data != "" || f.config != "" {
		return true
	}
	_, err := os.Stat(defaultConfigFile)
	return err == nil
}

// keySource is where the keys are: in a keyring file, or in etcd, where several servers share
// them. Either file or shared is set.
type keySource struct {
	file   *keyring.File
	path   string // of the file
	shared *server.Keys
}

func (k *keySource) close() {
	if k.shared != nil {
		_ = k.shared.Close() // nothing is left to write
	}
}

// open opens the keys that the flags name. It does not need a running server; the server may be
// on another machine.
func (f *keyringFlags) open(ctx context.Context, env environment) (*keySource, error) {
	path, cfg, err := f.read()
	if err != nil {
		return nil, err
	}
	if cfg != nil && cfg.RootKey != nil {
		shared, err := server.OpenKeys(ctx, cfg, env.now)
		return &keySource{shared: shared}, err
	}
	file, err := openKeyringFile(path)
	return &keySource{file: file, path: path}, err
}

// read returns the path of the keyring file, and the configuration that names it, if
// there is one.
func (f *keyringFlags) read() (path string, cfg *config.Config, err error) {
	if f.data != "" && f.config != "" {
		return "", nil, usageErrorf("--data and --config exclude each other")
	}
	if f.data != "" {
		return filepath.Join(f.data, "keyring.json"), nil, nil
	}
	cfg, err = loadConfigWithoutSecrets(cmp.Or(f.config, defaultConfigFile))
	if err != nil {
		return "", nil, fmt.Errorf("%w\n(--data DIR is for a keyring file without a configuration)", err)
	}
	return cfg.Keyring, cfg, nil
}

func openKeyringFile(path string) (*keyring.File, error) {
	file, err := keyring.LoadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no keyring at %s: the server makes one when it first starts", path)
	}
	return file, err
}

func newKeysListCommand(env environment) *cobra.Command {
	var from keyringFlags
	var output string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the keys, their purpose and how long they are kept",
		Example: `  daypass keys list
  daypass keys list --data /var/lib/daypass --output json`,
		Long: `Lists the keys of the keyring without their secrets. A superseded key
is kept until everything that it signed or sealed has expired.

If the configuration has a root_key, the keys of all servers are listed, with the
server that each belongs to.`,
		Args: noWords,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(output, "text"); err != nil {
				return err
			}
			source, err := from.open(cmd.Context(), env)
			if err != nil {
				return err
			}
			defer source.close()
			if source.shared != nil {
				return listSharedKeys(cmd.Context(), env, source.shared, output)
			}
			keys := source.file.Current().Keys(env.now())
			if output == "json" {
				return writeKeysJSON(env.stdout, keys)
			}
			return writeKeys(env.stdout, keys, env.columns)
		},
	}
	from.register(cmd.Flags())
	cmd.Flags().StringVar(&output, "output", "text", "text or json")
	return cmd
}

func writeKeys(out io.Writer, keys []keyring.Info, columns int) error {
	var t table
	t.add("PURPOSE", "KEY", "STATE", "ACTIVE FROM", "REFUSED FROM")
	for _, k := range keys {
		until := "-"
		if !k.Until.IsZero() {
			until = k.Until.Format(time.RFC3339)
		}
		t.add(string(k.Purpose), k.ID, string(k.State), k.Active.Format(time.RFC3339), until)
	}
	return t.write(out, columns)
}

func writeKeysJSON(out io.Writer, keys []keyring.Info) error {
	type key struct {
		Purpose   keyring.Purpose `json:"purpose"`
		ID        string          `json:"key"`
		State     keyring.State   `json:"state"`
		Active    time.Time       `json:"active_from"`
		Until     *time.Time      `json:"refused_from"`
		PublicKey string          `json:"public_key,omitempty"` // Ed25519, hexadecimal
	}
	list := make([]key, 0, len(keys))
	for _, k := range keys {
		one := key{Purpose: k.Purpose, ID: k.ID, State: k.State, Active: k.Active, PublicKey: hex.EncodeToString(k.Public)}
		if !k.Until.IsZero() {
			one.Until = &k.Until
		}
		list = append(list, one)
	}
	return writeIndented(out, list)
}

// rotateOptions are the options of keys rotate.
type rotateOptions struct {
	from       keyringFlags
	activateIn duration
	upstream   bool
	discard    bool
}

func newKeysRotateCommand(env environment) *cobra.Command {
	var o rotateOptions
	cmd := &cobra.Command{
		Use:   "rotate",
		Short: "Make new keys; the old ones still verify what they signed",
		Long: `Adds a new key that signs credentials and a new key that seals session tokens.
A running server uses them within a second; no server has to run. The old keys still
verify what they signed: credentials for 1 h 5 min, session tokens for 36 h 5 min.
Then they are dropped.

If the configuration has a root_key, every server makes a new key of its own. A server
signs with it once all live servers have seen it; the command waits for that. For
servers without a root_key that share a keyring file, give --activate-in and copy the
file to the others. Each reads it within a second, and all change over together.

If someone may have read the keys, give --discard and --upstream: everything issued so
far stops working at once.`,
		Example: `  daypass keys rotate
  daypass keys rotate --data /var/lib/daypass --activate-in 30m`,
		Args: noWords,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context(), env) },
	}
	o.from.register(cmd.Flags())
	cmd.Flags().Var(&o.activateIn, "activate-in", "sign with the new keys only after this `DURATION`, 30m for instance")
	cmd.Flags().BoolVar(&o.discard, "discard", false, "drop the old keys: every credential and session token issued so far is refused")
	cmd.Flags().BoolVar(&o.upstream, "upstream", false, "also change the key for the passwords of session roles, which logons then renew one by one")
	return cmd
}

func (o *rotateOptions) run(ctx context.Context, env environment) error {
	switch {
	case o.activateIn < 0:
		return usageErrorf("--activate-in is negative")
	case o.activateIn > 0 && (o.discard || o.upstream):
		return usageErrorf("--activate-in does not go with --discard or --upstream, which take effect at once")
	}
	source, err := o.from.open(ctx, env)
	if err != nil {
		return err
	}
	defer source.close()
	if source.shared != nil {
		if o.activateIn > 0 {
			return usageErrorf("--activate-in is for a keyring file that is copied; with root_key, keys sign when every server has seen them")
		}
		return rotateSharedKeys(ctx, env, source.shared, fleet.Rotation{Discard: o.discard, Upstream: o.upstream})
	}
	now := env.now()
	before := source.file.Current()
	after, err := source.file.Update(func(k *keyring.Keyring) *keyring.Keyring {
		before = k
		return o.rotate(k, now)
	})
	if err != nil {
		return err
	}
	return reportRotation(env.stdout, source.path, before.Keys(now), after.Keys(now))
}

func (o *rotateOptions) rotate(k *keyring.Keyring, now time.Time) *keyring.Keyring {
	if o.discard {
		k = k.Discard(now)
	} else {
		k = k.Rotate(now, now.Add(time.Duration(o.activateIn)))
	}
	if o.upstream {
		k = k.RotateUpstream(now)
	}
	return k
}

// reportRotation prints the new keys, the ones that stay with their expiry, and the removed
// ones.
func reportRotation(out io.Writer, path string, before, after []keyring.Info) error {
	does := map[keyring.Purpose]string{
		keyring.Credential: "signs credentials",
		keyring.Session:    "seals session tokens",
		keyring.Upstream:   "derives the passwords of session roles",
	}
	checks := map[keyring.Purpose]string{
		keyring.Credential: "checks the credentials it signed",
		keyring.Session:    "opens the session tokens it sealed",
	}
	known := func(list []keyring.Info, id string) bool {
		return slices.ContainsFunc(list, func(k keyring.Info) bool { return k.ID == id })
	}
	t := table{gap: 1}
	for _, k := range after {
		switch when := k.Active.Format(time.RFC3339); {
		case !known(before, k.ID) && k.State == keyring.InUse:
			t.add("new", k.ID, does[k.Purpose]+" from now on")
		case !known(before, k.ID):
			t.add("new", k.ID, does[k.Purpose]+" from "+when+" on")
		case k.State == keyring.Pending:
			t.add("pending", k.ID, does[k.Purpose]+" from "+when+" on")
		case !k.Until.IsZero():
			t.add("kept", k.ID, checks[k.Purpose]+" until "+k.Until.Format(time.RFC3339))
		}
	}
	for _, k := range before {
		if !known(after, k.ID) {
			why := "nothing it signed is alive"
			if k.State != keyring.Expired {
				why = "what it was used for stops working"
			}
			t.add("dropped", k.ID, why)
		}
	}
	if err := t.write(out, 0); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "\nA running server uses %s within a second.\nOther machines of this installation need a copy of it.\n", path)
	return err
}
