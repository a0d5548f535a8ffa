package main

import (
	"log/slog"
	"strings"

	"github.com/coreos/go-systemd/v22/daemon"
)

// tellServiceManager sends assignments of sd_notify(3) to the service manager that has started
// the process. Without one it does nothing.
func tellServiceManager(log *slog.Logger, state ...string) {
	if _, err := daemon.SdNotify(false, strings.Join(state, "\n")); err != nil {
		log.Warn("the service manager was not told", "state", state, "err", err)
	}
}
