package config

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

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
