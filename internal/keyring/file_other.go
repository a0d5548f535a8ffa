//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package keyring

import (
	"errors"
	"os"
)

// The server and `daypass keys` need a system with flock. The rest of the program,
// which reads no keyring unless it is told to, runs without.

func lock(string) (*os.File, error) { return nil, errors.ErrUnsupported }

func keepOwner(*os.File, *os.File) error { return nil }
