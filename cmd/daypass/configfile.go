package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/daypass/daypass/internal/config"
)

// loadConfig reads the configuration for a command that needs the secrets in it.
func loadConfig(path string) (*config.Config, error) {
	cfg, err := config.Load(path)
	return cfg, noSuchConfig(path, err)
}

// loadConfigWithoutSecrets reads the configuration for a command that works without the secrets
// in the environment. The variables that hold them need not exist.
func loadConfigWithoutSecrets(path string) (*config.Config, error) {
	cfg, err := config.LoadEnv(path, config.SomeSecret)
	return cfg, noSuchConfig(path, err)
}

// noSuchConfig adds the next step to the error for a missing configuration.
func noSuchConfig(path string, err error) error {
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if _, missing := os.Stat(path); missing == nil {
		return err // a file that the configuration names
	}
	return fmt.Errorf("%s: does not exist: name the configuration with --config FILE (`daypass init` writes one to begin with; `daypass dev` needs none)", path)
}

const defaultConfigFile = "daypass.yaml"
