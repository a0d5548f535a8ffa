package postgres

import "syscall"

// deathSignal is the signal that a child gets when this process dies without stopping
// it.
type deathSignal = syscall.Signal

const (
	deathTerminate = syscall.SIGTERM // initdb removes its files
	deathShutdown  = syscall.SIGINT  // the server's fast shutdown
)

// childAttributes also puts the child in a process group of its own, so that Ctrl-C in the
// terminal reaches only this process, which stops the server when it is ready to.
func childAttributes(as account, death deathSignal) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: death, Credential: as.credential()}
}
