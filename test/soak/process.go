//go:build linux

package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// child is a process of ours that ends with this one.
type child struct {
	cmd     *exec.Cmd
	started time.Time
	done    chan struct{} // closed when it has been waited for
	err     error         // of Wait; read after done
}

// spawn starts a program with its output appended to a file. The thread that
// starts it is kept, since the signal at the parent's death is the thread's.
func spawn(log string, program string, args ...string) (*child, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Env = append(os.Environ(), "GOTRACEBACK=all")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	c := &child{cmd: cmd, started: time.Now(), done: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			c.err = cmd.Wait()
			close(c.done)
		}
	}()
	return c, <-started
}

func (c *child) pid() int { return c.cmd.Process.Pid }

func (c *child) alive() bool {
	select {
	case <-c.done:
		return false
	default:
		return true
	}
}

// end sends a signal and waits for the end, which it forces after a time. It
// reports whether force was needed.
func (c *child) end(signal syscall.Signal, within time.Duration) (forced bool) {
	_ = c.cmd.Process.Signal(signal)
	select {
	case <-c.done:
		return false
	case <-time.After(within):
		_ = c.cmd.Process.Kill()
		<-c.done
		return true
	}
}

// descriptors counts a process's open files, by what they are.
func descriptors(pid int) (map[string]int, error) {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	kinds := map[string]int{}
	for _, entry := range entries {
		name, err := os.Readlink(filepath.Join(dir, entry.Name()))
		if err != nil {
			continue // closed in between
		}
		if kind, _, ok := strings.Cut(name, ":["); ok {
			name = kind // socket:[12345]
		}
		if strings.HasSuffix(name, ".jsonl") {
			name = "audit file"
		}
		kinds[name]++
	}
	return kinds, nil
}

func sum(counts map[string]int) (n int) {
	for _, c := range counts {
		n += c
	}
	return n
}

// resident is a process's VmRSS in bytes.
func resident(pid int) int64 {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
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

// cpuTime is what a process has spent, user and system.
func cpuTime(pid int) time.Duration {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond // USER_HZ is 100
}

var (
	dumpHeader  = regexp.MustCompile(`^goroutine \d+ (?:gp=\S+ m=\S+ (?:mp=\S+ )?)?\[([^\]]*)\]:$`)
	dumpCreator = regexp.MustCompile(`^created by (\S+)`)
)

// goroutines reads the dump that a Go process leaves on SIGQUIT: how many
// goroutines each function has started. The runtime's own are left out.
func goroutines(dump []byte) map[string]int {
	counts := map[string]int{}
	inside, creator, system := false, "", false
	flush := func() {
		if inside && !system {
			counts[creator]++
		}
		inside = false
	}
	scanner := bufio.NewScanner(bytes.NewReader(dump))
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		line := scanner.Text()
		if dumpHeader.MatchString(line) {
			flush()
			inside, creator, system = true, "main", strings.HasPrefix(line, "goroutine 0 ")
			continue
		}
		if line == "" {
			flush()
			continue
		}
		if m := dumpCreator.FindStringSubmatch(line); m != nil {
			creator = m[1]
			system = system || strings.HasPrefix(creator, "runtime.")
		}
	}
	flush()
	return counts
}

// more lists what one count has more of than another, and how much.
func more(now, before map[string]int) []string {
	var list []string
	for name, n := range now {
		if extra := n - before[name]; extra > 0 {
			list = append(list, fmt.Sprintf("%s +%d", name, extra))
		}
	}
	slices.Sort(list)
	return list
}
