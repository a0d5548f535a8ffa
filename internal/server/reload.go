package server

import (
	"cmp"
	"context"
	"time"

	"github.com/daypass/daypass/internal/config"
	"github.com/daypass/daypass/internal/fleet"
	"github.com/daypass/daypass/internal/handover"
)

// logonTimeout is how long a logon may take, unless Options.Patience says otherwise.
const logonTimeout = 10 * time.Second

const (
	// watchInterval is how often files are looked at.
	watchInterval = time.Second
	// retryInterval is how often a refused configuration is tried again while its files stay
	// the same, because the reason may be something else, such as a missing directory.
	retryInterval = 5 * time.Second
)

// followChanges reads the keyring, the configuration and every file that it names again
// when they change, and at once after SIGHUP.
func (s *service) followChanges(ctx context.Context) error {
	ticker := time.NewTicker(watchInterval)
	defer ticker.Stop()
	var rekeyed <-chan struct{} // nil, so it never fires, if the keys are in a file
	if s.member != nil {
		rekeyed = s.member.changed
	}
	var differences differences
	for {
		s.expiry.look(s.log, s.inUse(), s.opts.Now())
		if s.member != nil {
			differences.look(s.log, fleet.Differences(s.member.Servers()))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.opts.Hangup:
			s.reload()
		case <-rekeyed:
			s.swap(s.live.Load().cfg) // the passwords of session roles may derive from another key
		case <-ticker.C:
			s.reloadKeyring()
			s.followFiles()
		}
	}
}

func (s *service) reloadKeyring() {
	if s.keysFile == nil {
		return
	}
	switch changed, err := s.keysFile.Reload(); {
	case err != nil:
		s.log.Error("the keyring file was refused: the earlier keys stay in force", "err", err)
	case changed:
		s.log.Info("keyring reloaded", "keys", s.keys.Current().String())
		live := s.live.Load()
		s.swap(live.cfg)
	}
}

// reload handles SIGHUP.
func (s *service) reload() {
	s.reloadKeyring()
	if err := s.audit.Reopen(); err != nil {
		s.log.Error("reopening the audit log", "err", err)
	}
	if s.opts.Load == nil {
		return
	}
	s.files.told = "" // log the reason again: the operator asked
	s.readConfiguration(true)
}

// fileWatch notices when the files of the configuration change.
type fileWatch struct {
	last    []config.File // at the last look
	refused []config.File // when the configuration was refused; nil if it is in force
	tried   time.Time     // when it was refused
	told    string        // the reason that was last logged
}

// changed looks at the files of the configuration in force and reports whether to read it
// again. It does so if the files differ from those in force and have not changed since the
// last look: someone may be replacing several files, one after the other.
func (w *fileWatch) changed(live []config.File, now time.Time) bool {
	before := w.last
	w.last = look(live, before)
	if config.SameContent(w.last, live) {
		// After a refused version, the files may be those in force again.
		return w.refused != nil && now.Sub(w.tried) >= retryInterval
	}
	if !config.SameContent(w.last, before) {
		return false
	}
	return w.refused == nil || !config.SameContent(w.last, w.refused) || now.Sub(w.tried) >= retryInterval
}

// look looks at each of the files. before has the results of an earlier look.
func look(files, before []config.File) []config.File {
	known := make(map[string]config.File, len(before))
	for _, f := range before {
		known[f.Path] = f
	}
	next := make([]config.File, len(files))
	for i, f := range files {
		if last, ok := known[f.Path]; ok {
			f = last
		}
		next[i] = f.Look()
	}
	return next
}

// followFiles reads the configuration again when one of its files has changed.
func (s *service) followFiles() {
	if s.opts.Load != nil && s.files.changed(s.live.Load().cfg.Files, s.opts.Now()) {
		s.readConfiguration(false)
	}
}

// readConfiguration puts a changed configuration in force, as a whole or not at all. The
// reason for a refusal is logged once, however often the file is tried. asked means that the operator
// has sent SIGHUP, and so has written the file to its end.
func (s *service) readConfiguration(asked bool) {
	before := s.live.Load().cfg
	cfg, err := s.opts.Load()
	if err == nil && !config.SameContent(look(cfg.Files, nil), cfg.Files) {
		// Files were replaced while they were read, so this may be a mixture of old and
		// new ones. They are read again once they stop changing.
		return
	}
	if err == nil && !asked {
		err = cfg.CutShort(before)
	}
	if err == nil {
		err = before.MayBecome(cfg)
	}
	if err == nil {
		err = s.loadCertificates(cfg)
	}
	if err != nil {
		s.files.refused, s.files.tried = look(before.Files, s.files.last), s.opts.Now()
		s.refused.Store(&err)
		s.observers.reloaded(nil, s.opts.Now())
		if text := err.Error(); text != s.files.told {
			s.files.told = text
			s.log.Error("the configuration was refused: the earlier one stays in force", "err", err)
		}
		s.reloaded(err)
		return
	}
	s.files = fileWatch{}
	s.refused.Store(nil)
	s.swap(cfg)
	s.configRead.Store(s.opts.Now().Unix())
	s.setLimits(cfg)
	s.revoked.renew(cfg, s.log)
	s.observers.reloaded(cfg, s.opts.Now())
	for _, warning := range cfg.Warnings {
		s.log.Warn("configuration", "warning", warning)
	}
	s.log.Info("configuration reloaded", "clusters", len(cfg.Clusters), "changed", changedFiles(before.Files, cfg.Files))
	s.reloaded(nil)
}

func (s *service) reloaded(err error) {
	if s.opts.Reloaded != nil {
		s.opts.Reloaded(err)
	}
}

// changedFiles names the files that differ.
func changedFiles(before, after []config.File) []string {
	old := make(map[string]config.File, len(before))
	for _, f := range before {
		old[f.Path] = f
	}
	names := []string{}
	for _, f := range after {
		if was, ok := old[f.Path]; !ok || was.Sum != f.Sum {
			names = append(names, f.Path)
		}
	}
	return names
}

// swap puts a configuration in force. Clusters with unchanged settings keep their
// connections.
func (s *service) swap(cfg *config.Config) {
	before := s.live.Load()
	after := &snapshot{cfg: cfg, clusters: newClusters(before.clusters, cfg, s.keys.Current(), s.opts, s.observers)}
	s.live.Store(after)
	for id, replaced := range before.clusters.byID {
		if now := after.clusters.byID[id]; now == nil || now.admin != replaced.admin {
			s.retiring.Go(func() { s.retire(id, replaced.admin) })
		}
	}
}

// afterTheLast is how long the clean-up after the last session of a cluster that was replaced may take.
const afterTheLast = 25 * time.Second

// retire closes the connections of a cluster that was replaced, once the logons that may use them
// are over. If the cluster was removed or leads to other servers now, its sessions continue, and the
// connections are needed to clean up after them.
func (s *service) retire(id string, admin *handover.Admin) {
	defer admin.Close()
	if !s.unlessEnding(cmp.Or(s.opts.Patience, logonTimeout)) || s.front.Left(admin) == 0 {
		return
	}
	s.log.Warn("sessions continue at servers that the configuration does not name any more; their session roles lose their rights when they end, "+
		"and stay there: run `daypass cluster clean` with the earlier configuration afterwards", "cluster", id, "sessions", s.front.Left(admin))
	for s.front.Left(admin) > 0 {
		if !s.unlessEnding(time.Second) {
			return
		}
	}
	s.unlessEnding(afterTheLast)
}

// unlessEnding waits, and returns false at once when the server ends.
func (s *service) unlessEnding(wait time.Duration) bool {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-s.ending:
		return false
	}
}
