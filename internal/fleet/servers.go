package fleet

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/daypass/daypass/internal/registry"
)

// Server is a live server, as it announces itself.
type Server struct {
	Self
	Signing string   // the key that it signs with; empty: a key from a keyring file
	Roots   []string // the root keys that it has, the one that it uses first
	// Silent reports that the server counts as gone, although it did not announce that it was
	// leaving: it has crashed, or is cut off from the registry and may still have sessions.
	Silent bool
	// Behind reports that the server has not yet read the latest keys.
	Behind bool
	// Offset is how far the server's clock is ahead of the caller's, to within a fraction of a
	// second.
	Offset time.Duration
}

// maxOffset is how far clocks may be apart before Differences reports it.
const maxOffset = 5 * time.Second

func (v *view) list(at time.Time) []Server {
	var list []Server
	for _, s := range v.liveAt(at) {
		list = append(list, Server{Self: s.Self, Signing: s.Signing, Roots: s.Roots, Behind: s.Seen < v.seen, Offset: s.offset})
	}
	return list
}

// Servers lists the servers that are alive, by name. While the registry cannot be read, it lists
// those that were alive when the registry was last read, because they may still answer.
func (f *Fleet) Servers() []Server {
	at := time.Now()
	if asOf := f.asOf.Load(); asOf != nil && registry.Age(*asOf) > stale {
		at = *asOf
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.view.list(at)
}

// Peers lists Servers, and after them those that are silent for up to an hour.
func (f *Fleet) Peers() []Server {
	list := f.Servers()
	live := map[string]bool{}
	for _, s := range list {
		live[s.ID] = true
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, id := range slices.Sorted(maps.Keys(f.view.servers)) {
		if s := f.view.servers[id]; !live[id] && !s.Leaving && time.Since(s.since) < buried {
			list = append(list, Server{Self: s.Self, Roots: s.Roots, Silent: true})
		}
	}
	return list
}

// Servers lists the live servers, by name. To compare their clocks, it waits up to lease for each
// of them to update its announcement, and leaves out those that do not.
func (o *Operator) Servers(ctx context.Context) ([]Server, error) {
	limited, cancel := context.WithTimeout(ctx, lease)
	defer cancel()
	v, err := o.read(ctx)
	if err != nil {
		return nil, err
	}
	first := v.servers
	for {
		silent := slices.ContainsFunc(slices.Collect(maps.Values(v.servers)), func(s *server) bool {
			before := first[s.ID]
			return before != nil && !s.gone && !s.after(&before.serverStatement)
		})
		if !silent {
			return v.list(time.Now()), nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-limited.Done():
			maps.DeleteFunc(v.servers, func(id string, s *server) bool { return first[id] != nil && !s.after(&first[id].serverStatement) })
			return v.list(time.Now()), nil
		case <-time.After(100 * time.Millisecond):
		}
		records, err := o.Store.List(ctx, prefix)
		if err != nil {
			return nil, fmt.Errorf("reading what the servers share: %w", err)
		}
		v = v.next(o.Roots, records, o.Now(), false)
	}
}

// The subjects of Differences.
const (
	Configurations = "configuration"
	Releases       = "release"
	Clocks         = "clock"
	RootKeys       = "root key"
)

// Subjects are all that servers may differ in.
var Subjects = []string{Configurations, Releases, Clocks, RootKeys}

// Differences lists, by subject, the differences between servers that should not last. It compares
// the configurations of servers of one release only: the hash covers the defaults too, and a release
// that has a new setting has a default for it.
func Differences(servers []Server) map[string]string {
	found := map[string]string{}
	releases := group(servers, func(s *Server) string { return s.Release })
	if len(releases) > 1 {
		found[Releases] = say(releases)
	}
	if roots := group(servers, func(s *Server) string { return first(s.Roots) }); len(roots) > 1 {
		found[RootKeys] = say(roots)
	}
	of := map[string][]Server{} // by release
	for _, s := range servers {
		if s.Config != "" { // one that starts has not read it
			of[s.Release] = append(of[s.Release], s)
		}
	}
	var configurations []string
	for _, release := range slices.Sorted(maps.Keys(of)) {
		groups := group(of[release], func(s *Server) string { return s.Config })
		if len(groups) < 2 {
			continue
		}
		text := say(groups)
		if parts := differentParts(of[release]); len(parts) > 0 {
			text += " (in " + strings.Join(parts, ", ") + ")"
		}
		configurations = append(configurations, text)
	}
	if len(configurations) > 0 {
		found[Configurations] = strings.Join(configurations, "; ")
	}
	var ahead, behind *Server
	for i := range servers {
		s := &servers[i]
		if ahead == nil || s.Offset > ahead.Offset {
			ahead = s
		}
		if behind == nil || s.Offset < behind.Offset {
			behind = s
		}
	}
	if ahead != nil && ahead.Offset-behind.Offset > maxOffset {
		found[Clocks] = fmt.Sprintf("%s is %v ahead of %s", ahead.ID, (ahead.Offset - behind.Offset).Round(time.Second), behind.ID)
	}
	return found
}

// differentParts lists the parts of the configuration that are not the same on all servers.
func differentParts(servers []Server) []string {
	different := map[string]bool{}
	for _, s := range servers[1:] {
		for _, pair := range [][2]map[string]string{{s.ConfigParts, servers[0].ConfigParts}, {servers[0].ConfigParts, s.ConfigParts}} {
			for name, hash := range pair[0] {
				if pair[1][name] != hash {
					different[name] = true
				}
			}
		}
	}
	return slices.Sorted(maps.Keys(different))
}

// group returns the names of the servers by their value of something. It leaves out servers without
// a value.
func group(servers []Server, of func(*Server) string) map[string][]string {
	groups := map[string][]string{}
	for i := range servers {
		if value := of(&servers[i]); value != "" {
			groups[value] = append(groups[value], servers[i].ID)
		}
	}
	return groups
}

// say writes groups as "x on a, c; y on b".
func say(groups map[string][]string) string {
	var parts []string
	for _, value := range slices.Sorted(maps.Keys(groups)) {
		parts = append(parts, value+" on "+strings.Join(groups[value], ", "))
	}
	return strings.Join(parts, "; ")
}

func first(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[0]
}
