package config

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// CutShort returns an error if the configuration file ends within a line and that of the
// configuration before did not. Someone may be writing it, or the disk may be full. What is there can
// be a sound configuration that lacks a boundary or a Deny.
func (c *Config) CutShort(before *Config) error {
	if len(c.Files) == 0 || len(before.Files) == 0 || c.Files[0].Path != before.Files[0].Path || c.Files[0].ended || !before.Files[0].ended {
		return nil
	}
	return fmt.Errorf("%s ends within a line, and may not be written to its end: end it with a line break, or send SIGHUP if it is whole", c.Path)
}

// MayBecome returns an error that names every changed key that cannot be put in force while
// the server runs.
func (c *Config) MayBecome(next *Config) error {
	keys := slices.Collect(maps.Keys(c.fixed))
	for key := range next.fixed {
		if _, both := c.fixed[key]; !both {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	var errs []error
	within := "\x00" // a section that was added or removed; its keys are not reported one by one
	for _, key := range keys {
		before, after := c.fixed[key], next.fixed[key]
		if before == after || strings.HasPrefix(key, within) {
			continue
		}
		if before == "given" || after == "given" {
			within = key + "."
		}
		errs = append(errs, next.Fault(key, cannotChange(before, after)))
	}
	return errors.Join(errs...)
}

func cannotChange(before, after string) error {
	const how = "while the server runs: restart it"
	switch {
	case before == "given":
		return errors.New("cannot be taken away " + how)
	case after == "given":
		return errors.New("cannot be added " + how)
	}
	return fmt.Errorf("cannot change from %q to %q %s", before, after, how)
}
