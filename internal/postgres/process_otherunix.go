//go:build unix && !linux

package postgres

import "syscall"

// deathSignal is not available on this system: if this process is killed, the child keeps
// running.
type deathSignal int

const (
	deathTerminate deathSignal = iota
	deathShutdown
)

// childAttributes puts the child in a process group of its own, so that Ctrl-C in the
// terminal reaches only this process, which stops the server when it is ready to.
func childAttributes(as account, _ deathSignal) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Credential: as.credential()}
}
