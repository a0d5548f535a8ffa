package doctor

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/daypass/daypass/internal/config"
	"github.com/daypass/daypass/internal/keyring"
)

// Mask removes from a text whatever must not be in a public issue. The zero value knows no
// secrets yet. Not safe for concurrent use.
type Mask struct {
	// ShowNames keeps host names, addresses, cluster identifiers, account numbers and directories. Secrets are
	// removed anyway.
	ShowNames bool

	secrets  []string
	hosts    []string          // known ones, which need not look like host names
	clusters []string          // cluster identifiers
	aliases  map[string]string // the replacement for each name, so that a reader can see when two lines are about the same host or cluster
}

// leastSecret is the shortest text that is treated as a secret. A shorter text would also match
// inside ordinary words.
const leastSecret = 6

// Secret adds a text that is removed wherever it appears.
func (m *Mask) Secret(text string) {
	text = strings.TrimSpace(text)
	if len(text) >= leastSecret && !slices.Contains(m.secrets, text) {
		m.secrets = append(m.secrets, text)
		slices.SortFunc(m.secrets, func(a, b string) int { return len(b) - len(a) }) // longest first, because one secret may be part of another
	}
}

// Host adds a host name that is masked, in whatever form it appears.
func (m *Mask) Host(name string) {
	name = strings.ToLower(strings.Trim(name, "[]."))
	if name != "" && !local(name) && !slices.Contains(m.hosts, name) {
		m.hosts = append(m.hosts, name)
		slices.SortFunc(m.hosts, func(a, b string) int { return len(b) - len(a) })
	}
}

// Cluster adds a cluster identifier to the mask. An identifier that is one of ownWords is masked
// only where it is quoted or part of an ARN.
func (m *Mask) Cluster(identifier string) {
	identifier = strings.ToLower(identifier)
	if identifier != "" && !slices.Contains(m.clusters, identifier) {
		m.clusters = append(m.clusters, identifier)
		slices.SortFunc(m.clusters, func(a, b string) int { return len(b) - len(a) })
	}
}

// ownWords are words that the report uses itself.
var ownWords = []string{"api", "certificates", "check", "client", "clock", "cluster", "clusters", "configuration", "data", "database", "databases", "daypass", "doctor", "endpoint", "etcd",
	"files", "gateway", "host", "key", "keyring", "keys", "list", "logons", "machine", "metrics", "provider", "psql", "registry", "root", "run", "server", "servers", "sign-in", "start", "the"}

var (
	// assigned matches a value after a name that marks it as secret: in YAML, in a connection
	// string, in an environment. A password may contain commas, brackets and ampersands, so a value
	// that is not quoted ends at a space. After a colon, one of less than four characters is a word.
	assigned = regexp.MustCompile(`(?i)((?:secret|passw(?:or)?d|passwd|passphrase|pwd|\bpass|token|seed|cookie|api[_-]?key|private[_-]?key|secret[_-]?access[_-]?key)["']?\s*(?:=|[:=]\s*))` +
		`("(?:[^"\\]|\\.)+"|'(?:[^'\\]|\\.)+'|(?:\\\s|\S){4,}|[^\s:]{1,3}(?:\s|$))`)
	// complaint matches the beginning of an error about a file or a key whose name ends like that of a
	// secret, as in …/password: no such file or directory.
	complaint = regexp.MustCompile(`^(?:no such file or directory|permission denied|operation not permitted|file does not exist|does not exist|` +
		`is a directory|not a directory|too many open files|too many levels of symbolic links|input/output error|file name too long|stale NFS file handle|` +
		`(?:is|has) (?:required|empty|duplicated|a|an|the|not|no|\d+)(?:\W|$))`)
	// inQuery matches the query of a URL, parameter the value of one of its parameters.
	inQuery   = regexp.MustCompile(`[a-zA-Z][a-zA-Z0-9+.-]*://[^\s"'<>\x60?]*\?[^\s"'<>\x60]+`)
	parameter = regexp.MustCompile(`([?&;][^=&;\s]*=)([^&;]+)`)
	// inURL matches what a URL has before its host: a name and a password, or a token. A password
	// that was not escaped may have any character, also a space if the URL is quoted.
	inURL    = regexp.MustCompile(`(://)([^/@\s:"'\x60]*)(:[^\s"'\x60]*)?@`)
	inParsed = regexp.MustCompile(`(parse ["\x60][^"\x60:]*://[^"\x60:/@]*:)[^"\x60]*@`)
	// login matches the password before a host without a URL's scheme.
	login = regexp.MustCompile(`([^\s/@:"'\x60(]+:)[^\s/@"'\x60(]+(@)`)
	// port matches what net/url takes for a port: the beginning of a password with / ? or #.
	port = regexp.MustCompile(`(invalid port )"(?:[^"\\]|\\.)*"`)
	// authorization matches the credentials in a header of HTTP.
	authorization = regexp.MustCompile(`(?i)\b((?:bearer|basic|dpop)\s+)[a-z0-9+/=_~.-]{6,}`)
	// block matches a PEM block.
	block = regexp.MustCompile(`(?s)-----BEGIN [A-Z ]+-----.*?(-----END [A-Z ]+-----|$)`)
	// long matches texts that are too long for a word or a name: keys, session tokens,
	// signatures.
	long = regexp.MustCompile(`[A-Za-z0-9+/=_~-]{33,}(\.[A-Za-z0-9+/=_~-]{8,})*`)
	// accessKey matches an access key ID, which identifies its owner.
	accessKey = regexp.MustCompile(`\b(A[KS]IA|AIDA|AROA)[A-Z0-9]{8,}\b`)
	number    = regexp.MustCompile(`[0-9]+`)
	address   = regexp.MustCompile(`\[?[0-9A-Fa-f]*:[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*\]?|\b[0-9]{1,3}(?:\.[0-9]{1,3}){3}\b`)
	// hostName matches a name with dots that is not a file or a program.
	hostName = regexp.MustCompile(`[\pL\pN_](?:[\pL\pN_-]*[\pL\pN_])?(?:\.[\pL\pN_](?:[\pL\pN_-]*[\pL\pN_])?)*\.\pL[\pL\pN-]*[\pL\pN]`)
	// plainHost matches a host in a URL or in an error of a resolver, which need not have dots.
	plainHost = regexp.MustCompile(`(://(?:[^\s/@"]*@)?|\blookup )([\pL\pN_][\pL\pN_.-]*)`)
	mail      = regexp.MustCompile(`[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+`)
	// directory matches the directories of a path, also those with up to four words.
	directory = regexp.MustCompile(`(^|[\s"'(=:])(?:file://)?(?:[A-Za-z]:|~)?(?:\\\\|[/\\])(?:[^\s"'():,;/\\]+(?: [^\s"'():,;/\\]+){0,3}[/\\])+`)
)

// Names with a dot that are not hosts: they end in one of these, or are listed.
var (
	fileEnds = []string{"yaml", "yml", "json", "jsonl", "crt", "cer", "pem", "key", "db", "md", "conf", "cnf", "lock", "secret", "password", "txt", "sh", "go", "service", "log", "socket"}
	keyPaths = config.Paths()
)

var (
	// named matches what errors of PostgreSQL and of the configuration name in quotation marks.
	named = regexp.MustCompile(`(?i)\b((?:user|role|login|group|person|principal|owner|database|schema|policy|certificate)s? )"([^"]*)"`)
	// inARN matches the name of a person or of a database user in an ARN. The name of a session goes with it.
	inARN = regexp.MustCompile(`(\barn:[a-z-]+:[a-z]+:[^:\s]*:[^:\s]*:)(user|role|assumed-role|federated-user|group)/[^\s"',;)]+`)
	// inDatabaseARN matches the name of a database user, a group or a database in an ARN.
	inDatabaseARN = regexp.MustCompile(`(\barn:[a-z-]+:[a-z]+:[^:\s]*:[^:\s]*:(?:dbuser|dbgroup|dbname):[^\s/"']+/)[^\s"',;)]+`)
	// inSettings matches a name in a connection string, as in the errors of pgx.
	inSettings = regexp.MustCompile(`\b(user|database|dbname|host)=([^\s"'\x60,&\[]+)`)
	// validFor matches the names in a certificate, which crypto/x509 lists.
	validFor = regexp.MustCompile(`(certificate is (?:not valid for any names, but wanted to match |valid for ))(.+?)(, not |$)`)
	// inSubject matches an attribute of the subject or issuer of a certificate, as Go and OpenSSL write
	// it: CN=Ana Example,O=Acme and /O=Acme/CN=Ana Example and O = Acme.
	inSubject = regexp.MustCompile(`\b((?:CN|O|OU|L|ST|C|DC|UID|STREET|POSTALCODE|SERIALNUMBER|emailAddress) ?= ?)((?:\\.|[^\s,+/"'\n;:)\]\[\\])(?:\\.|[^,+/"'\n;:)\]\[\\])*)`)
	// wellKnown are names that say nothing about an installation.
	wellKnown = []string{"daypass", "postgres", "template1"}
)

// Text returns the text without whatever must not be published.
func (m *Mask) Text(text string) string {
	const redacted = "[redacted]"
	text = block.ReplaceAllString(text, redacted)
	for _, secret := range m.secrets {
		text = strings.ReplaceAll(text, secret, redacted)
	}
	text = keyring.Redact(text)
	text = inQuery.ReplaceAllStringFunc(text, func(found string) string {
		return parameter.ReplaceAllStringFunc(found, func(one string) string {
			parts := parameter.FindStringSubmatch(one)
			if parts[1][1:] == "sslmode=" {
				return one
			}
			return parts[1] + redacted
		})
	})
	text = inParsed.ReplaceAllString(text, "${1}"+redacted+"@")
	text = inURL.ReplaceAllStringFunc(text, func(found string) string {
		parts := inURL.FindStringSubmatch(found)
		if parts[3] == "" {
			return parts[1] + redacted + "@"
		}
		return parts[1] + parts[2] + ":" + redacted + "@"
	})
	text = login.ReplaceAllString(text, "${1}"+redacted+"${2}")
	text = port.ReplaceAllString(text, "${1}"+redacted)
	text = authorization.ReplaceAllString(text, "${1}"+redacted)
	text = replaceAt(assigned, text, func(found, after string) string {
		parts := assigned.FindStringSubmatch(found)
		value := strings.TrimLeft(parts[2], `"'`)
		if strings.HasPrefix(value, redacted) || strings.HasSuffix(parts[1], ": ") && complaint.MatchString(parts[2]+after) {
			return found
		}
		// What closes the text around an assignment stays, and so does its end.
		return parts[1] + redacted + parts[2][len(strings.TrimRight(parts[2], "\"'`,;:)} \t\n")):]
	})
	text = accessKey.ReplaceAllString(text, "[access key]")
	if m.ShowNames {
		return longTokens(text, redacted)
	}
	text = validFor.ReplaceAllStringFunc(text, func(found string) string {
		parts := validFor.FindStringSubmatch(found)
		names := strings.Split(parts[2], ", ")
		for i, name := range names {
			if !local(name) && !strings.HasPrefix(name, "[") {
				names[i] = m.alias("host", name)
			}
		}
		return parts[1] + strings.Join(names, ", ") + parts[3]
	})
	text = named.ReplaceAllStringFunc(text, func(found string) string {
		parts := named.FindStringSubmatch(found)
		if parts[2] == "" || strings.HasPrefix(parts[2], "[") || slices.Contains(wellKnown, parts[2]) {
			return found
		}
		return parts[1] + `"` + m.alias("name", parts[2]) + `"`
	})
	text = inARN.ReplaceAllString(text, "$1$2/[name]")
	text = inDatabaseARN.ReplaceAllString(text, "${1}[name]")
	text = inSettings.ReplaceAllStringFunc(text, func(found string) string {
		parts := inSettings.FindStringSubmatch(found)
		switch {
		case slices.Contains(wellKnown, parts[2]), local(parts[2]):
			return found
		case parts[1] == "host":
			return "host=" + m.alias("host", parts[2])
		}
		return parts[1] + "=" + m.alias("name", parts[2])
	})
	text = inSubject.ReplaceAllString(text, "${1}[name]")
	text = directory.ReplaceAllString(text, "${1}…/")
	text = longTokens(text, redacted)
	text = mail.ReplaceAllString(text, "[mail address]")
	for _, host := range m.hosts {
		text = replaceFold(text, host, m.alias("host", host))
	}
	for _, cluster := range m.clusters {
		alias := m.alias("cluster", cluster)
		text = replaceFold(text, `"`+cluster+`"`, `"`+alias+`"`)
		text = regexp.MustCompile(`:`+regexp.QuoteMeta(cluster)+`([/"'\s]|$)`).ReplaceAllString(text, ":"+alias+"$1")
		if !slices.Contains(ownWords, cluster) {
			text = replaceFold(text, cluster, alias)
		}
	}
	text = plainHost.ReplaceAllStringFunc(text, func(found string) string {
		parts := plainHost.FindStringSubmatch(found)
		if local(parts[2]) {
			return found
		}
		return parts[1] + m.alias("host", parts[2])
	})
	text = address.ReplaceAllStringFunc(text, func(found string) string {
		bare := strings.Trim(found, "[]")
		if ip, err := netip.ParseAddr(bare); err != nil || ip.IsLoopback() || ip.IsUnspecified() {
			return found
		}
		return m.alias("host", bare)
	})
	text = replaceAt(hostName, text, func(found string, after string) string {
		end := strings.ToLower(found[strings.LastIndexByte(found, '.')+1:])
		switch {
		case local(found), isKeyPath(found, after), strings.HasPrefix(after, "_"): // the last part of a host's name has no underscore
			return found
		case slices.Contains(fileEnds, end):
			if base := found[:len(found)-len(end)-1]; strings.Contains(base, ".") { // db.example.com.crt
				return m.alias("host", base) + "." + end
			}
			return found
		}
		return m.alias("host", found)
	})
	return number.ReplaceAllStringFunc(text, func(found string) string {
		if len(found) == accountDigits {
			return "[account]"
		}
		return found
	})
}

// accountDigits is the length of an account number.
const accountDigits = 12

// longTokens removes texts that are as long as a key and consist of a key's characters.
func longTokens(text, instead string) string {
	return long.ReplaceAllStringFunc(text, func(found string) string {
		if strings.ContainsAny(found, "0123456789") && strings.ContainsAny(strings.ToLower(found), "abcdefghijklmnopqrstuvwxyz") {
			return instead
		}
		return found
	})
}

// alias returns the text that replaces a name, always the same one for the same name.
func (m *Mask) alias(kind, name string) string {
	name = strings.ToLower(strings.Trim(name, "."))
	if m.aliases == nil {
		m.aliases = map[string]string{}
	}
	key := kind + " " + name
	if m.aliases[key] == "" {
		number := 1
		for other := range m.aliases {
			if strings.HasPrefix(other, kind+" ") {
				number++
			}
		}
		m.aliases[key] = fmt.Sprintf("[%s %d]", kind, number)
	}
	return m.aliases[key]
}

// replaceAt is ReplaceAllStringFunc with a function that also sees what follows.
func replaceAt(pattern *regexp.Regexp, text string, with func(found, after string) string) string {
	var out strings.Builder
	done := 0
	for _, at := range pattern.FindAllStringIndex(text, -1) {
		out.WriteString(text[done:at[0]] + with(text[at[0]:at[1]], text[at[1]:]))
		done = at[1]
	}
	return out.String() + text[done:]
}

// isKeyPath reports whether a text with dots is a key of the configuration and not a host name. The
// path of a key in a list goes on after an index, as in iam.users[0].name.
func isKeyPath(found, after string) bool {
	return slices.ContainsFunc(keyPaths, func(path string) bool {
		return path == found || strings.HasPrefix(after, "[") && strings.HasPrefix(path, found+".") || strings.HasSuffix(path, "."+found)
	})
}

func local(host string) bool {
	host = strings.ToLower(host)
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && (ip.IsLoopback() || ip.IsUnspecified())
}

// replaceFold replaces a name, whatever its case, where it is a whole word.
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
