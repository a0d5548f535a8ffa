package main

import (
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/daypass/daypass/internal/fleet"
	"github.com/daypass/daypass/internal/server"
)

func newServersCommand(env environment) *cobra.Command {
	var path, output string
	cmd := &cobra.Command{
		Use:   "servers",
		Short: "List the servers of this installation, and how they differ",
		Long: `Lists the servers that share keys in etcd, with root_key in the configuration: their
release, the time of their start, their sessions, a hash of the configuration and when
it was read, the key that each signs with, whether it has read the latest keys, and how
far its clock is from this machine's. The list comes from etcd, not from the servers.
The command takes two or three seconds, because it waits for a new entry of each server.

If servers differ in configuration, release, clock or root key, the last lines name the
differences, and the exit code is 1.`,
		Example: `  daypass servers
  daypass servers --config /etc/daypass/daypass.yaml --output json`,
		Args: noWords,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(output, "table"); err != nil {
				return err
			}
			cfg, err := loadConfigWithoutSecrets(path)
			if err != nil {
				return err
			}
			if cfg.RootKey == nil {
				return fmt.Errorf("%s has no root_key: a server with a keyring file has no others to list", path)
			}
			shared, err := server.OpenKeys(cmd.Context(), cfg, env.now)
			if err != nil {
				return err
			}
			defer shared.Close()
			list, err := shared.Servers(cmd.Context())
			if err != nil {
				return err
			}
			found := fleet.Differences(list)
			if output == "json" {
				err = writeServersJSON(env, list, found)
			} else {
				err = writeServers(env, list, found)
			}
			if err == nil && len(found) > 0 {
				err = &exitError{code: 1}
			}
			return err
		},
	}
	registerConfig(cmd.Flags(), &path)
	cmd.Flags().StringVar(&output, "output", "table", "table or json")
	completeWith(cmd, "output", "table", "json")
	return cmd
}

func writeServers(env environment, list []fleet.Server, found map[string]string) error {
	var t table
	t.add("SERVER", "RELEASE", "SINCE", "SESSIONS", "CONFIGURATION", "READ", "SIGNS WITH", "KEYS", "CLOCK", "PEERS")
	for _, s := range list {
		sessions, keys, signs, peers := strconv.Itoa(s.Sessions), "all seen", s.Signing, s.Peers
		if s.Leaving {
			sessions += ", leaving"
		}
		if s.Behind {
			keys = "behind"
		}
		if signs == "" {
			signs = "keyring file's"
		}
		if peers == "" {
			peers = "-"
		}
		t.add(s.ID, s.Release, s.Started.Format(time.RFC3339), sessions, s.Config, s.ConfigRead.Format(time.RFC3339),
			signs, keys, fmt.Sprintf("%+.1fs", s.Offset.Seconds()), peers)
	}
	if err := t.write(env.stdout, env.columns); err != nil {
		return err
	}
	for _, subject := range fleet.Subjects {
		if text, differ := found[subject]; differ {
			fmt.Fprintf(env.stdout, "The servers differ in %s: %s\n", subject, text)
		}
	}
	return nil
}

func writeServersJSON(env environment, list []fleet.Server, found map[string]string) error {
	type server struct {
		ID         string    `json:"server"`
		Release    string    `json:"release"`
		Started    time.Time `json:"since"`
		Sessions   int       `json:"sessions"`
		Leaving    bool      `json:"leaving"`
		Config     string    `json:"configuration"`
		ConfigRead time.Time `json:"configuration_read"`
		Signing    string    `json:"signs_with"`
		Seen       bool      `json:"keys_seen"`
		Offset     float64   `json:"clock_offset_seconds"`
		Peers      string    `json:"peers"`
		Roots      []string  `json:"root_keys"`
	}
	out := struct {
		Servers     []server          `json:"servers"`
		Differences map[string]string `json:"differences"`
	}{[]server{}, found}
	for _, s := range list {
		out.Servers = append(out.Servers, server{s.ID, s.Release, s.Started, s.Sessions, s.Leaving, s.Config, s.ConfigRead, s.Signing, !s.Behind,
			s.Offset.Seconds(), s.Peers, s.Roots})
	}
	return writeIndented(env.stdout, out)
}
