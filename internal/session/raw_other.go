//go:build !linux

package session

import (
	"errors"
	"time"
)

// rawRelay reports that on this system the relay uses ordinary reads and writes.
const rawRelay = false

func rawRead(int, []byte) (int, error) { return 0, errors.ErrUnsupported }

func rawWrite(int, []byte) (int, error) { return 0, errors.ErrUnsupported }

func rawQueued(int) int { return -1 }

func rawHungUp(int) (closed, broken bool) { return false, false }

func rawUserTimeout(int) (milliseconds int, ok bool) { return 0, false }

func rawSetUserTimeout(int, int) {}

func rawUnanswered(int) time.Duration { return 0 }
