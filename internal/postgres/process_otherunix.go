//go:build unix && !linux

package postgres

import "syscall"

// deathSignal is not available on this system: the child outlives a process that is
// killed.
type deathSignal int

const (
	deathTerminate deathSignal = iota
	deathShutdown
)

// childAttributes puts the child in a process group of its own: Ctrl-C in the
// terminal is for this process, which stops the server when it is done.
func childAttributes(as account, _ deathSignal) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Credential: as.credential()}
}
