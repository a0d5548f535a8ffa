package config

import (
	"regexp"
	"time"
)

// clusterKeys are the keys of one cluster.
var clusterKeys = join([]key{
	{name: "identifier", value: text, required: true, change: live, pattern: identifierPattern,
		want: "1 to 63 letters, digits, hyphens, dots or underscores, beginning with a letter or a digit",
		doc:  "The ClusterIdentifier of calls. Unique."},
	{name: "database", value: text, absent: "dev", change: reconnect,
		doc: "The default database, reported as DBName."},
	{name: "upstream", value: text, absent: defaultUpstream, change: reconnect,
		doc: "The administrative login of the target, as a connection string. It creates database users and session roles. It is never logged and never returned. A server on another machine needs an `sslmode`. No environment variable and no file in the home directory adds to it."},
}, secretKeys("upstream_password", "The password of the administrative login", "", false, reconnect), []key{
	{name: "custom_domains", value: texts, change: live, none: true,
		doc: "Host names that are accepted as CustomDomainName."},
	{name: "allow_superusers", value: boolean, absent: "false", change: reconnect,
		doc: "Whether DbUser may name a superuser."},
	{name: "allow_predefined_roles", value: boolean, absent: "false", change: reconnect,
		doc: "Whether DbGroups may name `pg_*` roles."},
	{name: "never_lend", value: texts, change: reconnect, none: true,
		doc: "Roles of the target that neither DbUser nor DbGroups may name; a `*` stands for any characters. `daypass cluster check` does not ask for rights on them."},
	{name: "remove_passwords", value: text, absent: "autocreated", change: reconnect,
		pattern: regexp.MustCompile(`^(autocreated|all|none)$`), want: "autocreated, all or none",
		doc: "The database users whom no password of their own lets in past the gateway: those that AutoCreate makes; all, from their next logon on; or none."},
	{name: "session_limits", value: mapping, change: live, unset: "no limits",
		doc: "Bounds on the sessions of the cluster; further ones are refused with 53300.",
		keys: []key{
			{name: "max", value: integer, least: 1, most: mostLimit, change: live, unset: "no limit",
				doc: "Sessions in all."},
			{name: "per_user", value: integer, least: 1, most: mostLimit, change: live, unset: "no limit",
				doc: "Sessions of one database user."},
			{name: "scope", value: text, absent: "server", change: live, pattern: regexp.MustCompile(`^(server|all)$`), want: "server or all",
				doc: "What `max` and `per_user` count: the sessions of each server, or those of all servers that share `registry.etcd` ([Several servers](several-servers.md#limits-over-all-servers))."},
			{name: "idle", value: seconds, least: 1, most: inSeconds(year), change: live, unset: "no limit",
				doc: "Time that a session may wait for its client. It ends with 57P05, in a transaction with 25P03."},
			{name: "total", value: seconds, least: 1, most: inSeconds(year), change: live, unset: "no limit",
				doc: "Time since the logon. The session ends with 57P01."},
			{name: "end_at_expiry", value: boolean, absent: "false", change: live,
				doc: "Whether a session ends when its credential expires, with 57P01."},
			{name: "notice", value: seconds, absent: "5m", most: inSeconds(24 * time.Hour), change: live,
				doc: "Time ahead of `total` and `end_at_expiry` at which the client gets a NOTICE. 0: none."},
		}},
	{name: "prewarm", value: mapping, change: live, unset: "none",
		doc: "Sessions that are started ahead of logons.",
		keys: []key{
			{name: "max", value: integer, required: true, most: 1000, change: live,
				doc: "Their number, at most."},
		}},
	{name: "parked_sessions", value: mapping, change: live, unset: "none",
		doc: "Sessions with the server that are kept, after a reset, for the next logon of the same principal (docs/operations.md).",
		keys: []key{
			{name: "max", value: integer, required: true, most: 1000, change: live,
				doc: "Their number, at most. 0: none."},
			{name: "idle", value: seconds, absent: "30s", least: 1, most: inSeconds(time.Hour), change: live,
				doc: "Time that one waits for a logon."},
			{name: "age", value: seconds, absent: "10m", least: 1, most: inSeconds(24 * time.Hour), change: live,
				doc: "Time since it began, at its first logon."},
		}},
	{name: "tags", value: tags, change: live, none: true,
		doc: "Tags of the cluster: `aws:ResourceTag/NAME`, and in `DescribeClusters`."},
})
