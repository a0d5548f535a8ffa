#!/bin/sh
# A server that runs is restarted with the new program; one that does not run is not
# started: a first installation has no configuration yet.
set -e
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload || true
	systemctl try-restart daypass.service || true
fi
if [ ! -e /etc/daypass/daypass.yaml ]; then
	cat <<'END'
Daypass is installed and not running yet. To begin:
    daypass init --config /etc/daypass/daypass.yaml --data /var/lib/daypass
    systemctl enable --now daypass
END
fi
