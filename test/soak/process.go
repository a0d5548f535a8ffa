//go:build linux

package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// descriptors counts a process's open files by their kind.
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
			continue // closed in the meantime
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

var (
	dumpHeader  = regexp.MustCompile(`^goroutine \d+ (?:gp=\S+ m=\S+ (?:mp=\S+ )?)?\[([^\]]*)\]:$`)
	dumpCreator = regexp.MustCompile(`^created by (\S+)`)
)

// goroutines reads the dump that a Go process writes on SIGQUIT, and returns how many goroutines
// each function has started, without the runtime's own.
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

// more lists the names whose count has grown, and by how much.
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
