package sitetest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Process is a program that runs beside this one. It ends together with this one, as far as the
// system supports that. It is safe for concurrent use.
type Process struct {
	Started time.Time

	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended
	err  error         // the result of Wait; read it only after done
}

// Run starts a program, found as exec.LookPath does, with additional environment variables.
func Run(log io.Writer, environ []string, program string, args ...string) (*Process, error) {
	path, err := exec.LookPath(program)
	if err != nil {
		return nil, err
	}
	if path, err = filepath.Abs(path); err != nil {
		return nil, err
	}
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), environ...)
	cmd.SysProcAttr = attributes()
	p := &Process{Started: time.Now(), cmd: cmd, done: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		// Linux sends the signal at the death of the thread that started the process (prctl(2)), so
		// that thread is kept while the program runs.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			p.err = cmd.Wait()
			close(p.done)
		}
	}()
	return p, <-started
}

// PID returns the process ID.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done returns a channel that is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err returns how the process ended. Call it only after Done.
func (p *Process) Err() error { return p.err }

// Alive reports whether the process is still running.
func (p *Process) Alive() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Signal sends a signal, unless the process has ended.
func (p *Process) Signal(signal os.Signal) { _ = p.cmd.Process.Signal(signal) }

// End sends a signal and waits for the process to end. If that takes longer than within, End kills
// the process and returns true. A nil Process was never started.
func (p *Process) End(signal os.Signal, within time.Duration) (forced bool) {
	if p == nil {
		return false
	}
	p.Signal(signal)
	select {
	case <-p.done:
		return false
	case <-time.After(within):
		_ = p.cmd.Process.Kill()
		<-p.done
		return true
	}
}

// Stop ends the process with SIGTERM.
func (p *Process) Stop() { p.End(syscall.SIGTERM, 10*time.Second) }

// Reachable waits until something listens at every address, or the process has ended.
func (p *Process) Reachable(ctx context.Context, addresses ...string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for _, address := range addresses {
		for {
			conn, err := net.Dial("tcp", address)
			if err == nil {
				conn.Close()
				break
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("nothing listens at %s: %w", address, context.Cause(ctx))
			case <-p.done:
				return fmt.Errorf("%s ended at its start: %v", filepath.Base(p.cmd.Path), p.err)
			case <-time.After(10 * time.Millisecond):
			}
		}
	}
	return nil
}

// CPU returns the CPU time that the process has used, user and system, on Linux; elsewhere 0.
func (p *Process) CPU() time.Duration {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.PID()))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	const ticksPerSecond = 100 // USER_HZ, which is constant in Linux's interface to user space
	return time.Duration(user+system) * time.Second / ticksPerSecond
}

// Resident returns the process's resident memory in bytes, on Linux; elsewhere 0.
func (p *Process) Resident() int64 {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID()))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, _ := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			return kib << 10
		}
	}
	return 0
}
