package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/daypass/daypass/internal/filemode"
)

// maxProxyFile bounds the file of maps.
const maxProxyFile = 1 << 20

// ProxyMap is one entry of the file of `daypass proxy`. Empty values are left out in the file.
type ProxyMap struct {
	Where                               string // file and line, for messages
	Listen                              int
	Cluster, Database, User, Duration   string
	WithIAM, AutoCreate                 bool
	Groups                              []string
	Profile, Host, SSLMode, SSLRootCert string
	Port                                int
	UnixSocket                          string
}

// proxyFileKeys are the keys of the file of `daypass proxy`.
var proxyFileKeys = []key{{name: "maps", value: mappings, required: true, keys: proxyMapKeys,
	doc: "Ports, and the sessions that they lead to."}}

var proxyMapKeys = []key{
	{name: "listen", value: integer, required: true, least: 1, most: 65535, doc: "The port on this machine."},
	{name: "cluster", value: text, required: true, doc: "The cluster to log on to."},
	{name: "database", value: text, required: true, doc: "The database, or `*`: the client chooses."},
	{name: "user", value: text, doc: "The database user."},
	{name: "with_iam", value: boolean, absent: "false", doc: "Log on as the database user of your own IAM identity, in place of `user`."},
	{name: "groups", value: texts, doc: "Database groups to join."},
	{name: "auto_create", value: boolean, absent: "false", doc: "Create the database user if it does not exist."},
	{name: "duration", value: text, doc: "How long the password works, 15m to 60m."},
	{name: "profile", value: text, doc: "The profile of the AWS configuration."},
	{name: "host", value: text, doc: "The host of the gateway."},
	{name: "port", value: integer, least: 1, most: 65535, doc: "The port of the gateway."},
	{name: "sslmode", value: text, doc: "How the gateway's certificate is checked: verify-full, verify-ca or require."},
	{name: "sslrootcert", value: path, doc: "A file of the CA that signed the gateway's certificate."},
	{name: "unix_socket", value: path, doc: "The directory of a Unix socket, in place of a TCP port."},
}

// LoadProxyMaps reads the file of `daypass proxy`.
func LoadProxyMaps(path string) ([]ProxyMap, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxProxyFile {
		return nil, fmt.Errorf("%s: has more than %d bytes", path, maxProxyFile)
	}
	// Anyone who can change the file decides where the person's passwords go. A group that is the
	// person's own may.
	if fault := filemode.Check(path, info, filemode.Public); fault != nil && info.Mode().IsRegular() && !(fault.Mendable && filemode.PrivateGroup(info)) {
		return nil, fault
	}
	data, _, err := contents(path)
	if err != nil {
		return nil, err
	}
	f, err := newYAMLFile(path, func(string) (string, bool) { return "", false })
	if err != nil {
		return nil, err
	}
	root, err := f.document(data)
	if err != nil {
		return nil, err
	}
	var maps []ProxyMap
	for _, s := range f.open(root, "", proxyFileKeys).sections("maps") {
		maps = append(maps, ProxyMap{
			Where:  fmt.Sprintf("%s:%d", path, s.node.Line),
			Listen: s.integer("listen"), Cluster: s.text("cluster"), Database: s.text("database"), User: s.text("user"), Duration: s.text("duration"),
			WithIAM: s.boolean("with_iam"), AutoCreate: s.boolean("auto_create"), Groups: s.texts("groups"), Profile: s.text("profile"), Host: s.text("host"),
			SSLMode: s.text("sslmode"), SSLRootCert: s.home("sslrootcert"), Port: s.integer("port"), UnixSocket: s.home("unix_socket"),
		})
	}
	return maps, f.err()
}

// ReadAgain reads a file that a file of maps names, each time it is used.
func ReadAgain(path string) ([]byte, error) {
	data, _, err := filemode.ReadRegular(path, maxFile)
	return data, err
}

// home is filePath, but replaces ~/ at the beginning with the person's home directory. It returns
// the value "system" unchanged: in sslrootcert it means the system's certificates.
func (s *section) home(name string) string {
	path := s.filePath(name)
	if s.given(s.key(name)) == "system" {
		return "system"
	}
	if rest, ok := strings.CutPrefix(s.given(s.key(name)), "~/"); ok {
		if home, err := os.UserHomeDir(); err == nil {
			return filepath.Join(home, rest)
		}
	}
	return path
}
