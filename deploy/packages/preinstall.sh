#!/bin/sh
# The account that the service runs as. Files of the package belong to it or to its
# group, so it is there before they are.
set -e
getent group daypass >/dev/null || groupadd --system daypass
getent passwd daypass >/dev/null ||
	useradd --system --gid daypass --home-dir /var/lib/daypass --no-create-home --shell /usr/sbin/nologin --comment Daypass daypass
