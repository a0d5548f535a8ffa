package console

import (
	"net"
	"strconv"
	"strings"

	"github.com/daypass/daypass/internal/quote"
)

// logon is how to log on with a credential.
type logon struct {
	Host, Database, User string
	Port                 int
	password             string
	ownCA                bool // the gateway's certificate is from its own CA
}

// tool is the connection string of one tool. Fields are the values for a tool that has a form
// instead.
type tool struct {
	Name, Note, Text string
	Fields           []field
}

type field struct{ Name, Value string }

// rootCert returns libpq's sslrootcert: the downloaded file, or the system's CAs.
func (l *logon) rootCert() string {
	if l.ownCA {
		return caFile
	}
	return "system"
}

// tools returns the connection strings that can be written for this logon.
func (l *logon) tools() []tool {
	port := strconv.Itoa(l.Port)
	note := ""
	if l.ownCA {
		note = "Run it in the directory with " + caFile + "."
	}
	var tools []tool
	add := func(t tool, err error) {
		if err == nil { // a name may be impossible in a tool's connection string
			tools = append(tools, t)
		}
	}
	dsn, err := l.dsn()
	if err == nil {
		var words, password string
		if words, err = quote.Shell("psql", dsn); err == nil {
			password, err = quote.Shell(l.password)
		}
		add(tool{Name: "psql", Note: note, Text: "PGPASSWORD=" + password + " " + words}, err)
	}
	env, err := l.environment()
	add(tool{Name: "Environment variables", Note: "For psql, pg_dump and every other program with libpq.", Text: env}, err)
	line, err := quote.PassFile(l.Host, port, l.Database, l.User, l.password)
	add(tool{Name: "Password file", Note: "A line for ~/.pgpass, which has to have mode 0600.", Text: line}, err)
	jdbc, err := l.jdbc()
	add(tool{Name: "JDBC", Note: "The PostgreSQL driver. " + note, Text: jdbc}, err)
	uri, err := l.uri("postgresql+psycopg")
	add(tool{Name: "SQLAlchemy and pandas", Note: "SQLAlchemy 2 with psycopg 3; for psycopg2 write postgresql+psycopg2. " + note, Text: `import pandas, sqlalchemy
engine = sqlalchemy.create_engine("` + uri + `")
print(pandas.read_sql("SELECT current_user", engine))`}, err)
	uri, err = l.uri("postgresql")
	add(tool{Name: "URI", Note: "For most other drivers. " + note, Text: uri}, err)
	add(tool{Name: "DBeaver, DataGrip, pgAdmin", Fields: []field{
		{"Host", l.Host}, {"Port", port}, {"Database", l.Database}, {"User name", l.User}, {"Password", l.password},
		{"SSL mode", "verify-full"}, {"CA certificate", map[bool]string{true: caFile, false: "the system's (leave it empty)"}[l.ownCA]},
	}, Note: "Do not save the password: it works until the credential expires. daypass proxy needs none."}, nil)
	return tools
}

func (l *logon) dsn() (string, error) {
	var words []string
	for _, pair := range []field{
		{"host", l.Host}, {"port", strconv.Itoa(l.Port)}, {"dbname", l.Database}, {"user", l.User}, {"sslmode", "verify-full"}, {"sslrootcert", l.rootCert()},
	} {
		value, err := quote.Conninfo(pair.Value)
		if err != nil {
			return "", err
		}
		words = append(words, pair.Name+"="+value)
	}
	return strings.Join(words, " "), nil
}

func (l *logon) environment() (string, error) {
	var lines []string
	for _, pair := range []field{
		{"PGHOST", l.Host}, {"PGPORT", strconv.Itoa(l.Port)}, {"PGDATABASE", l.Database}, {"PGUSER", l.User}, {"PGPASSWORD", l.password},
		{"PGSSLMODE", "verify-full"}, {"PGSSLROOTCERT", l.rootCert()}, {"PGGSSENCMODE", "disable"},
	} {
		value, err := quote.Shell(pair.Value)
		if err != nil {
			return "", err
		}
		lines = append(lines, "export "+pair.Name+"="+value)
	}
	return strings.Join(lines, "\n"), nil
}

func (l *logon) address() string { return net.JoinHostPort(l.Host, strconv.Itoa(l.Port)) }

func (l *logon) uri(scheme string) (string, error) {
	parts, err := escaped(l.User, l.password, l.Database, l.rootCert())
	if err != nil {
		return "", err
	}
	return scheme + "://" + parts[0] + ":" + parts[1] + "@" + l.address() + "/" + parts[2] + "?sslmode=verify-full&sslrootcert=" + parts[3], nil
}

func (l *logon) jdbc() (string, error) {
	parts, err := escaped(l.Database, l.User, l.password, l.rootCert())
	if err != nil {
		return "", err
	}
	trust := "&sslrootcert=" + parts[3]
	if !l.ownCA {
		trust = "&sslfactory=org.postgresql.ssl.DefaultJavaSSLFactory"
	}
	return "jdbc:postgresql://" + l.address() + "/" + parts[0] + "?user=" + parts[1] + "&password=" + parts[2] + "&sslmode=verify-full" + trust, nil
}

func escaped(texts ...string) ([]string, error) {
	for i := range texts {
		part, err := quote.URI(texts[i])
		if err != nil {
			return nil, err
		}
		texts[i] = part
	}
	return texts, nil
}
