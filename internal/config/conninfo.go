package config

import (
	"encoding/hex"
	"errors"
	"maps"
	"slices"
	"strings"
)

// connInfo is a parsed connection string: libpq's parameters by keyword. The driver
// could parse it, but would fill in missing parameters from the environment and from
// files in the home directory, so the same configuration would mean different things on
// different machines. So it is parsed here, with libpq's rules (conninfo_parse and
// conninfo_uri_parse in fe-connect.c), completed, and given to the driver with nothing
// left out.
//
// Errors never quote the text, because a malformed one may have the password anywhere.
type connInfo map[string]string

var (
	errConnInfoNUL    = errors.New("it has a NUL byte")
	errConnInfoEquals = errors.New("a keyword has no = after it")
	errConnInfoQuote  = errors.New("a quoted value does not end")
	errConnInfoHost   = errors.New("an IPv6 address in brackets is wrong")
	errConnInfoCode   = errors.New("a percent-encoded character is wrong, or there is a space")
	errConnInfoPair   = errors.New("a parameter after the question mark is not of the form name=value")
)

func parseConnInfo(text string) (connInfo, error) {
	if strings.IndexByte(text, 0) >= 0 {
		return nil, errConnInfoNUL
	}
	for _, scheme := range []string{"postgres://", "postgresql://"} {
		if rest, ok := strings.CutPrefix(text, scheme); ok {
			return parseConnURI(rest)
		}
	}
	return parseConnWords(text)
}

const connSpaces = " \t\n\r\v\f"

// parseConnWords reads keyword=value words.
func parseConnWords(s string) (connInfo, error) {
	info := connInfo{}
	for s = strings.TrimLeft(s, connSpaces); s != ""; s = strings.TrimLeft(s, connSpaces) {
		name, rest, ok := strings.Cut(s, "=")
		if name = strings.Trim(name, connSpaces); !ok || name == "" || strings.ContainsAny(name, connSpaces) {
			return nil, errConnInfoEquals
		}
		rest = strings.TrimLeft(rest, connSpaces)
		quoted := strings.HasPrefix(rest, "'")
		if quoted {
			rest = rest[1:]
		}
		var value strings.Builder
		i, closed := 0, false
		for ; i < len(rest) && !closed; i++ {
			switch c := rest[i]; {
			case c == '\\' && i+1 < len(rest):
				i++
				value.WriteByte(rest[i])
			case c == '\\': // a backslash at the end escapes nothing
			case quoted && c == '\'', !quoted && strings.IndexByte(connSpaces, c) >= 0:
				closed = true
			default:
				value.WriteByte(c)
			}
		}
		if quoted && !closed {
			return nil, errConnInfoQuote
		}
		s = rest[i:]
		info.set(name, value.String())
	}
	if info["user"] == "" {
		delete(info, "user")
	}
	return info, nil
}

// parseConnURI reads the part of a URI after the scheme. It accepts libpq's extension:
// several hosts and ports, with commas between them.
func parseConnURI(s string) (connInfo, error) {
	info := connInfo{}
	if i := strings.IndexAny(s, "@/"); i >= 0 && s[i] == '@' {
		user, password, _ := strings.Cut(s[:i], ":")
		s = s[i+1:]
		if err := info.decode("user", user); err != nil {
			return nil, err
		}
		if err := info.decode("password", password); err != nil {
			return nil, err
		}
	}
	var hosts, ports strings.Builder
	for {
		end := strings.IndexAny(s, ":/?,")
		if strings.HasPrefix(s, "[") {
			closing := strings.IndexByte(s, ']')
			if closing < 2 {
				return nil, errConnInfoHost
			}
			hosts.WriteString(s[1:closing])
			s = s[closing+1:]
			if s != "" && strings.IndexByte(":/?,", s[0]) < 0 {
				return nil, errConnInfoHost
			}
		} else {
			if end < 0 {
				end = len(s)
			}
			hosts.WriteString(s[:end])
			s = s[end:]
		}
		if strings.HasPrefix(s, ":") {
			if end = strings.IndexAny(s[1:], "/?,"); end < 0 {
				end = len(s) - 1
			}
			ports.WriteString(s[1 : end+1])
			s = s[end+1:]
		}
		if !strings.HasPrefix(s, ",") {
			break
		}
		s = s[1:]
		hosts.WriteByte(',')
		ports.WriteByte(',')
	}
	path, query, _ := strings.Cut(s, "?")
	for name, raw := range map[string]string{"host": hosts.String(), "port": ports.String(), "database": strings.TrimPrefix(path, "/")} {
		if err := info.decode(name, raw); err != nil {
			return nil, err
		}
	}
	return info, info.query(query)
}

// query reads the parameters of a URI. If a name is repeated, the last one counts. ssl=true
// is JDBC's spelling of sslmode=require.
func (c connInfo) query(s string) error {
	for s != "" {
		var pair string
		pair, s, _ = strings.Cut(s, "&")
		rawName, rawValue, ok := strings.Cut(pair, "=")
		if !ok || strings.Contains(rawValue, "=") {
			return errConnInfoPair
		}
		name, err := uriDecoded(rawName)
		if err != nil {
			return err
		}
		value, err := uriDecoded(rawValue)
		if err != nil {
			return err
		}
		if name == "ssl" && value == "true" {
			name, value = "sslmode", "require"
		}
		c.set(name, value)
	}
	return nil
}

func (c connInfo) set(name, value string) {
	if name == "dbname" {
		name = "database"
	}
	c[name] = value
}

// decode sets the parameter for one part of a URI. It skips an empty part.
func (c connInfo) decode(name, raw string) error {
	if raw == "" {
		return nil
	}
	value, err := uriDecoded(raw)
	c[name] = value
	return err
}

func uriDecoded(raw string) (string, error) {
	raw = strings.Trim(raw, " ")
	var b strings.Builder
	for i := 0; i < len(raw); i++ {
		c := raw[i]
		switch {
		case c == ' ':
			return "", errConnInfoCode
		case c == '%':
			if i+2 >= len(raw) {
				return "", errConnInfoCode
			}
			decoded, err := hex.DecodeString(raw[i+1 : i+3])
			if err != nil || decoded[0] == 0 {
				return "", errConnInfoCode
			}
			c = decoded[0]
			i += 2
		}
		b.WriteByte(c)
	}
	return b.String(), nil
}

// String writes the parameters as keyword=value words.
func (c connInfo) String() string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(c)) {
		b.WriteString(name + "='" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(c[name]) + "' ")
	}
	return b.String()
}

// servers returns the hosts and ports in their order.
func (c connInfo) servers() (list []server) {
	hosts, ports := strings.Split(c["host"], ","), strings.Split(c["port"], ",")
	for i, host := range hosts {
		port := ports[0]
		if len(ports) == len(hosts) {
			port = ports[i]
		}
		if port == "" {
			port = "5432"
		}
		list = append(list, server{host, port})
	}
	return list
}

type server struct{ host, port string }
