//go:build unix

package server

import (
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// asGroup puts a program, and the programs that it starts, into a process group of their own. The
// whole group is killed when the program's context ends. A Ctrl-C at the terminal does not reach the
// group directly.
func asGroup(program *exec.Cmd) {
	program.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	program.Cancel = func() error { return unix.Kill(-program.Process.Pid, unix.SIGKILL) }
}
