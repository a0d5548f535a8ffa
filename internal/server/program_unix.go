//go:build unix

package server

import (
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// asGroup makes the end of a program's context end the programs that it has started too. They are in
// a process group of their own, so a Ctrl-C at the terminal reaches them through the context only.
func asGroup(program *exec.Cmd) {
	program.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	program.Cancel = func() error { return unix.Kill(-program.Process.Pid, unix.SIGKILL) }
}
