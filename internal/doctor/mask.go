package doctor

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/daypass/daypass/internal/keyring"
)

// Mask takes out of a text what must not be in a public issue. The zero value knows
// no secret yet. It is not safe for concurrent use.
type Mask struct {
	// ShowNames leaves host names, addresses, account numbers and directories as they
	// are. Secrets are taken out all the same.
	ShowNames bool

	secrets []string
	hosts   []string          // known ones, which need not look like host names
	aliases map[string]string // what stands for a host, so that two lines about one host can be told
}

// leastSecret is the length from which a text is taken for a secret: a shorter one
// would be found within words.
const leastSecret = 6

// Secret makes a text one that is taken out wherever it is.
func (m *Mask) Secret(text string) {
	text = strings.TrimSpace(text)
	if len(text) >= leastSecret && !slices.Contains(m.secrets, text) {
		m.secrets = append(m.secrets, text)
		slices.SortFunc(m.secrets, func(a, b string) int { return len(b) - len(a) }) // one may be a part of another
	}
}

// Host adds a name to those that are masked, whatever its form.
func (m *Mask) Host(name string) {
	name = strings.ToLower(strings.Trim(name, "[]."))
	if name != "" && !local(name) && !slices.Contains(m.hosts, name) {
		m.hosts = append(m.hosts, name)
		slices.SortFunc(m.hosts, func(a, b string) int { return len(b) - len(a) })
	}
}

var (
	// assigned is a value that a name before it says to be secret: in YAML, in a
	// connection string, in an environment.
	assigned = regexp.MustCompile(`(?i)((?:secret|passw(?:or)?d|passwd|token|seed|private[_-]?key|secret[_-]?access[_-]?key)["']?\s*[:=]\s*["']?)([^\s"',}&]{4,})`)
	// inURL is the password of a URL.
	inURL = regexp.MustCompile(`(://[^/@\s:]*:)[^/@\s]+(@)`)
	// block is a PEM file.
	block = regexp.MustCompile(`(?s)-----BEGIN [A-Z ]+-----.*?(-----END [A-Z ]+-----|$)`)
	// long is what no word and no name is: keys, tokens, session tokens, signatures.
	long = regexp.MustCompile(`[A-Za-z0-9+/=_~-]{33,}(\.[A-Za-z0-9+/=_~-]{8,})*`)
	// accessKey is an access key id, which tells whose it is.
	accessKey = regexp.MustCompile(`\b(A[KS]IA|AIDA|AROA)[A-Z0-9]{8,}\b`)
	account   = regexp.MustCompile(`\b[0-9]{12}\b`)
	address   = regexp.MustCompile(`\[?[0-9A-Fa-f]*:[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*\]?|\b[0-9]{1,3}(?:\.[0-9]{1,3}){3}\b`)
	// hostName is a name with dots, and not a file's or a program's.
	hostName  = regexp.MustCompile(`(?i)\b[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?)*\.[a-z][a-z0-9-]*[a-z0-9]\b`)
	mail      = regexp.MustCompile(`[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+`)
	directory = regexp.MustCompile(`(^|[\s"'(=:])(?:[A-Za-z]:)?[/\\](?:[^\s"'():,;/\\]+[/\\])+`)
)

// names with a dot that are no hosts: they end in one of these, or are listed.
var (
	fileEnds = []string{"yaml", "yml", "json", "jsonl", "crt", "cer", "pem", "key", "db", "md", "conf", "cnf", "lock", "secret", "password", "txt", "sh", "go", "service", "log", "socket"}
	known    = []string{"gateway.tls", "api.tls", "api.listen", "gateway.listen", "gateway.advertise", "registry.etcd", "metrics.listen", "admin.listen"}
)

// Text returns the text without what must not be published.
func (m *Mask) Text(text string) string {
	const redacted = "[redacted]"
	text = block.ReplaceAllString(text, redacted)
	for _, secret := range m.secrets {
		text = strings.ReplaceAll(text, secret, redacted)
	}
	text = keyring.Redact(text)
	text = inURL.ReplaceAllString(text, "${1}"+redacted+"${2}")
	text = assigned.ReplaceAllStringFunc(text, func(found string) string {
		parts := assigned.FindStringSubmatch(found)
		if strings.HasPrefix(parts[2], redacted) {
			return found
		}
		return parts[1] + redacted
	})
	text = accessKey.ReplaceAllString(text, "[access key]")
	if m.ShowNames {
		return longTokens(text, redacted)
	}
	text = directory.ReplaceAllString(text, "${1}…/")
	text = longTokens(text, redacted)
	text = mail.ReplaceAllString(text, "[mail address]")
	for _, host := range m.hosts {
		text = replaceFold(text, host, m.alias(host))
	}
	text = address.ReplaceAllStringFunc(text, func(found string) string {
		bare := strings.Trim(found, "[]")
		if ip, err := netip.ParseAddr(bare); err != nil || ip.IsLoopback() || ip.IsUnspecified() {
			return found
		}
		return m.alias(bare)
	})
	text = hostName.ReplaceAllStringFunc(text, func(found string) string {
		end := strings.ToLower(found[strings.LastIndexByte(found, '.')+1:])
		switch {
		case local(found) || slices.ContainsFunc(known, func(k string) bool { return strings.HasPrefix(found, k) }):
			return found
		case slices.Contains(fileEnds, end):
			if base := found[:len(found)-len(end)-1]; strings.Contains(base, ".") { // db.example.com.crt
				return m.alias(base) + "." + end
			}
			return found
		}
		return m.alias(found)
	})
	return account.ReplaceAllString(text, "[account]")
}

// longTokens takes out what is as long as a key and has the letters and digits of one.
func longTokens(text, instead string) string {
	return long.ReplaceAllStringFunc(text, func(found string) string {
		if strings.ContainsAny(found, "0123456789") && strings.ContainsAny(strings.ToLower(found), "abcdefghijklmnopqrstuvwxyz") {
			return instead
		}
		return found
	})
}

// alias is the same for the same host.
func (m *Mask) alias(host string) string {
	host = strings.ToLower(strings.Trim(host, "."))
	if m.aliases == nil {
		m.aliases = map[string]string{}
	}
	if m.aliases[host] == "" {
		m.aliases[host] = fmt.Sprintf("[host %d]", len(m.aliases)+1)
	}
	return m.aliases[host]
}

func local(host string) bool {
	host = strings.ToLower(host)
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && (ip.IsLoopback() || ip.IsUnspecified())
}

// replaceFold replaces a name in any case, where it is a whole word.
func replaceFold(text, name, with string) string {
	pattern := regexp.MustCompile(`(?i)(^|[^A-Za-z0-9_.-])` + regexp.QuoteMeta(name) + `($|[^A-Za-z0-9_-])`)
	for {
		next := pattern.ReplaceAllString(text, "${1}"+strings.ReplaceAll(with, "$", "$$")+"${2}")
		if next == text {
			return text
		}
		text = next
	}
}
