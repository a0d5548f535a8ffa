#!/bin/sh
# dpkg says remove or upgrade, rpm says how many versions are left.
set -e
case "${1:-0}" in
remove | 0)
	if [ -d /run/systemd/system ]; then
		systemctl disable --now daypass.service || true
	fi
	;;
esac
