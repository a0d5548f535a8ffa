package config

import "regexp"

// hostPort is an address to listen on. The reader checks the port's number.
var hostPort = regexp.MustCompile(`^.*:[0-9]{1,5}$`)

// fileKeys are the top-level keys of the file.
var fileKeys = []key{
	{name: "account", value: text, required: true, change: restart,
		pattern: accountPattern, want: "12 digits in quotes",
		doc: "The AWS account number: the account part of every ARN."},
	{name: "region", value: text, required: true, change: restart,
		pattern: regionPattern, want: "a region name such as us-east-1",
		doc: "The region of the credential scope and of every ARN."},
	{name: "data", value: text, required: true, change: restart,
		doc: "The directory for keys, certificates, the audit log and the registry. It is made with mode 0700 when it is missing."},
	{name: "keyring", value: text, change: restart, unset: "`keyring.json` in `data`",
		doc: "The file with the keys that sign credentials, where it is not in `data`: a secret that several servers mount. " +
			"It is made when it is missing, and a changed one is put in force within seconds."},
	{name: "api", value: mapping, required: true, change: live, keys: apiKeys,
		doc: "The AWS-compatible HTTP endpoint: redshift, sts and iam on one listener."},
	{name: "gateway", value: mapping, required: true, change: live, keys: gatewayKeys,
		doc: "The PostgreSQL endpoint that people log on to."},
	{name: "admin", value: mapping, change: restart, keys: adminKeys, unset: "no listener",
		doc: "A listener for the operator: metrics, readiness and profiles."},
	{name: "metrics", value: mapping, change: restart, keys: metricsKeys, unset: "no listener; `admin` serves metrics too",
		doc: "A listener for Prometheus on other machines. It serves `/metrics` alone, which names clusters, and asks for no password: let the network decide who reaches it."},
	{name: "audit", value: mapping, change: live, keys: auditKeys,
		doc: "Bounds on the audit log."},
	{name: "tracing", value: mapping, change: restart, keys: tracingKeys, unset: "as `OTEL_EXPORTER_OTLP_ENDPOINT` says, else none",
		doc: "Where OpenTelemetry traces are sent."},
	{name: "registry", value: mapping, change: live, keys: registryKeys, unset: "`registry.db` in `data`",
		doc: "Where several servers share what is revoked."},
	{name: "root_key", value: mapping, change: restart, keys: rootKeys, unset: "one keyring, `keyring.json` in `data`",
		doc: "The key above those that several servers share in `registry.etcd`. With it each server signs with a key of its own, and no key is copied: [Several servers](several-servers.md)."},
	{name: "sign_in", value: mapping, change: live, keys: signInKeys, unset: "no one signs in at a browser",
		doc: "People sign in at a browser with their company's account, for `aws login` and `daypass login` (docs/people.md)."},
	{name: "console", value: boolean, absent: "false", change: live,
		doc: "Pages for people at `sign_in.url/console/`: what they may ask for, credentials, who is logged on, why a call was refused. Needs `sign_in` (docs/people.md)."},
	{name: "peers", value: mapping, change: restart, keys: peersKeys, unset: "no listener: sessions and cancels of other servers are out of reach",
		doc: "Where the other servers with the same `root_key` reach this one: [Several servers](several-servers.md)."},
	{name: "clusters", value: mappings, change: live, none: true, keys: clusterKeys,
		doc: "The PostgreSQL servers that people log on to."},
	{name: "iam", value: mapping, change: live, none: true, keys: iamKeys,
		doc: "Who may call the API, and what for."},
}

// certificateKeys returns the keys for a pair of PEM files.
func certificateKeys(c change, reread bool) []key {
	return []key{
		{name: "certificate", value: path, required: true, change: c, reread: reread, doc: "A PEM file: the certificate, and the intermediate ones after it."},
		{name: "key", value: path, required: true, change: c, reread: reread, private: true, doc: "A PEM file: the private key of the certificate."},
	}
}

var apiKeys = []key{
	{name: "listen", value: text, required: true, change: restart,
		pattern: hostPort, want: "HOST:PORT, such as 127.0.0.1:8440",
		doc: "The address to listen on. Off loopback `tls` is required: credentials are handed out here."},
	{name: "tls", value: mapping, change: restart, keys: certificateKeys(live, false), unset: "plain HTTP, on loopback only",
		doc: "The certificate of the listener. Renewed files are put in force within seconds."},
	{name: "trusted_proxies", value: texts, change: live, none: true,
		doc: "Addresses or CIDR blocks of proxies whose `X-Forwarded-For` is believed, for `aws:SourceIp`, limits and the audit log."},
	{name: "proxy_protocol", value: mapping, change: live, keys: proxyProtocolKeys, unset: "no connection has a header",
		doc: "TCP balancers in front of the listener that send the client's address."},
	{name: "limits", value: mapping, change: live, keys: limitKeys,
		doc: "Bounds on what callers can take. Beyond them calls get `Throttling` or 503."},
}

var proxyProtocolKeys = []key{
	{name: "from", value: texts, required: true, change: live,
		doc: "Addresses or CIDR blocks of the balancers. Connections from there have to begin with a header of the PROXY protocol, " +
			"version 1 or 2. Its client address counts for `aws:SourceIp`, limits and the audit log. A header from any other address is refused."},
}

// mostLimit is the largest limit that can be configured.
const mostLimit = 1_000_000

var limitKeys = []key{
	{name: "rate", value: integer, absent: "20000", most: mostLimit, change: live,
		doc: "Calls a second of one IAM user, or of one IAM role with all its sessions. 0: no limit."},
	{name: "burst", value: integer, least: 1, most: mostLimit, change: live, unset: "twice `rate`, at least 40000",
		doc: "Calls at once after a pause."},
	{name: "concurrent", value: integer, absent: "1024", most: mostLimit, change: live,
		doc: "Calls of one principal in progress. 0: no limit."},
	{name: "connections", value: integer, absent: "4096", least: 1, most: mostLimit, change: restart,
		doc: "Connections in all."},
	{name: "per_address", value: integer, absent: "1024", least: 1, most: mostLimit, change: restart,
		doc: "Connections, and calls in progress, of one address (IPv6: of one /64)."},
}

var gatewayKeys = []key{
	{name: "listen", value: text, required: true, change: restart,
		pattern: hostPort, want: "HOST:PORT, such as 127.0.0.1:8440",
		doc: "The address to listen on."},
	{name: "tls", value: mapping, change: live, keys: certificateKeys(live, false), unset: "a CA and a server certificate are made in `data/tls`",
		doc: "The certificate of the listener. Renewed files are put in force within seconds."},
	{name: "proxy_protocol", value: mapping, change: live, keys: proxyProtocolKeys, unset: "no connection has a header",
		doc: "TCP balancers in front of the listener that send the client's address."},
	{name: "advertise", value: mapping, change: live,
		doc: "The address that `DescribeClusters` reports and `daypass connect` logs on at.",
		keys: []key{
			{name: "host", value: text, change: live,
				unset: "the host of `gateway.listen`, or this machine's host name when that is a wildcard",
				doc:   "A host name or an address."},
			{name: "port", value: integer, least: 1, most: 65535, change: live, unset: "the port of `gateway.listen`",
				doc: "A port."},
		}},
}

var adminKeys = []key{
	{name: "listen", value: text, required: true, change: restart,
		pattern: hostPort, want: "HOST:PORT, such as 127.0.0.1:8440",
		doc: "The address to listen on, on loopback: there is no password."},
	{name: "pprof", value: boolean, absent: "false", change: restart,
		doc: "Serve `/debug/pprof/` too."},
}

var metricsKeys = []key{
	{name: "listen", value: text, required: true, change: restart,
		pattern: hostPort, want: "HOST:PORT, such as 0.0.0.0:9441",
		doc: "The address to listen on."},
	{name: "tls", value: mapping, change: restart, keys: certificateKeys(live, false), unset: "plain HTTP",
		doc: "The certificate of the listener. Renewed files are put in force within seconds."},
}

var auditKeys = []key{
	{name: "principal_bytes", value: integer, absent: "1048576", most: 1 << 30, change: live,
		doc: "Bytes a second that the calls of one IAM user or IAM role may write to the audit log, 64 times as many at once. " +
			"Its logons and sessions may write four times as many. Calls and logons beyond that are refused until it has waited. 0: no limit; else at least 16384."},
}

var tracingKeys = []key{
	{name: "endpoint", value: text, required: true, change: restart,
		doc: "The URL of an OTLP/HTTP receiver, such as `http://127.0.0.1:4318`."},
}

var peersKeys = []key{
	{name: "listen", value: text, required: true, change: restart,
		pattern: hostPort, want: "HOST:PORT, such as 0.0.0.0:8443",
		doc: "The address to listen on. Only servers with the root key get past the TLS handshake; let no one else reach it."},
	{name: "advertise", value: text, change: restart, unset: "the host of `listen`, else the address from which this machine reaches etcd",
		pattern: hostPort, want: "HOST:PORT, such as 10.0.0.1:8443",
		doc: "Where the others find it."},
}

var rootKeys = []key{
	{name: "file", value: path, oneOf: "file", required: true, change: restart, reread: true, private: true,
		doc: "A file with the root key: 32 random bytes in base64 on one line, as `openssl rand -base64 32` prints them. " +
			"A second line may have the previous one. It is read at the start."},
	{name: "command", value: texts, oneOf: "file", required: true, change: restart,
		doc: "A program and its arguments that prints what `file` would hold, within 30 seconds: a client of a KMS, of Vault or of a PKCS#11 token. It is run at the start, without a shell."},
}

var registryKeys = []key{
	{name: "etcd", value: mapping, required: true, change: restart,
		doc: "An etcd that the servers share.",
		keys: join([]key{
			{name: "endpoints", value: texts, required: true, change: restart,
				doc: "URLs of etcd's members, such as `https://10.0.0.1:2379`; `http` on loopback only."},
			{name: "prefix", value: text, absent: "daypass/", change: restart, pattern: regexp.MustCompile(`^[!-~]{0,255}/$`),
				want: "up to 256 characters of ASCII without spaces, the last of them a slash, such as daypass/",
				doc:  "The beginning of every key. Nothing else writes under it."},
			{name: "tls", value: mapping, change: restart, unset: "the system's authorities, no client certificate",
				doc: "What TLS to etcd trusts and shows.",
				keys: []key{
					{name: "ca", value: path, change: live, unset: "the system's authorities", doc: "A PEM file: the authorities that etcd's certificate may come from."},
					{name: "certificate", value: path, change: restart, reread: true, doc: "A PEM file: the client certificate. It is read again for each connection."},
					{name: "key", value: path, change: restart, reread: true, private: true, doc: "A PEM file: the private key of the client certificate."},
				}},
			{name: "username", value: text, change: restart,
				doc: "The etcd user. With a client certificate, its common name is the user, and this is left out."},
		}, secretKeys("password", "The password of `username`", "", false, live))},
}
