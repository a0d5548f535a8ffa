//go:build !linux

package session

import "errors"

// rawRelay says that the relay works by ordinary reads and writes here.
const rawRelay = false

func rawRead(int, []byte) (int, error) { return 0, errors.ErrUnsupported }

func rawWrite(int, []byte) (int, error) { return 0, errors.ErrUnsupported }
