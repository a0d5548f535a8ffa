package postgres

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// account is the account that PostgreSQL runs as. On Windows it is always the user's own.
type account struct {
	switched bool
	name     string
}

type deathSignal int

const (
	deathTerminate deathSignal = iota
	deathShutdown
)

func serverAccount() (account, error) { return account{}, nil }
func (a account) give(string) error   { return nil }
func (a account) reach(string) error  { return nil }
func immediateShutdown(p *os.Process) { _ = p.Kill() }
func terminate(p *os.Process)         { _ = p.Kill() }
func temporaryRoots() (dirs []string) { return []string{os.TempDir()} }

func childAttributes(account, deathSignal) *syscall.SysProcAttr {
	// A process group of its own, so that Ctrl-C in the console reaches this process only.
	return &syscall.SysProcAttr{CreationFlags: syscall.CREATE_NEW_PROCESS_GROUP}
}

// fastShutdown uses pg_ctl, because Windows has no signals.
func fastShutdown(inst Installation, pgdata string, p *os.Process) {
	ctl := filepath.Join(inst.BinDir, program("pg_ctl"))
	if exec.Command(ctl, "stop", "-D", pgdata, "-m", "fast", "-W").Run() != nil {
		_ = p.Kill()
	}
}

// alive always returns false, so that only the directory's age counts. Files that a process
// has open cannot be removed anyway.
func alive(int) bool { return false }
