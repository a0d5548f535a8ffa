//go:build !linux

package session

import "errors"

// rawRelay reports that on this system the relay uses ordinary reads and writes.
const rawRelay = false

func rawRead(int, []byte) (int, error) { return 0, errors.ErrUnsupported }

func rawWrite(int, []byte) (int, error) { return 0, errors.ErrUnsupported }
