package postgres

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// process is a child process that ends with this process, if the system supports that
// (childAttributes).
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when the child has been waited for
	err  error         // the result of Wait; read it after done
}

// spawn starts cmd. A parent-death signal is sent when the thread that started the child
// ends, not only when the process does (prctl(2)). So spawn keeps that thread for as long as
// the child runs.
func spawn(cmd *exec.Cmd, as account, death deathSignal) (*process, error) {
	cmd.SysProcAttr = childAttributes(as, death)
	p := &process{cmd: cmd, done: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		p.err = cmd.Wait()
		close(p.done)
	}()
	if err := <-started; err != nil {
		if os.IsPermission(err) && as.switched {
			err = fmt.Errorf("%w: PostgreSQL does not run as root, and the account %s may not run programs in %s", err, as.name, filepath.Dir(cmd.Path))
		}
		return nil, err
	}
	return p, nil
}

// run runs a program to its end. If ctx ends first, it stops the program and returns
// ctx's error.
func run(ctx context.Context, cmd *exec.Cmd, as account) error {
	p, err := spawn(cmd, as, deathTerminate)
	if err != nil {
		return err
	}
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
		terminate(p.cmd.Process)
		if !p.wait(5 * time.Second) {
			_ = p.cmd.Process.Kill() // it may have ended in the meantime
			<-p.done
		}
		return ctx.Err()
	}
}

// wait reports whether the process ended within d.
func (p *process) wait(d time.Duration) bool {
	select {
	case <-p.done:
		return true
	case <-time.After(d):
		return false
	}
}

// childEnviron returns the environment for PostgreSQL's programs. It leaves out variables
// that would change their behaviour: PG*, the locale and the time zone. It sets TZ, because
// initdb would otherwise read the whole zone database to find the time zone.
func childEnviron() []string {
	env := []string{"LC_ALL=C", "TZ=UTC"}
	for _, kv := range os.Environ() {
		name, _, _ := strings.Cut(kv, "=")
		if strings.HasPrefix(name, "PG") || strings.HasPrefix(name, "LC_") || name == "LANG" || name == "TZ" {
			continue
		}
		env = append(env, kv)
	}
	return env
}
