package server

import (
	"context"
	"fmt"
	"html"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/daypass/daypass/test/pgtest"
)

const whoIsOn = "SELECT session_user"

// TestConsoleConnectionStrings pastes what the credential page has for each tool into the tool.
// psql and pgx always run. A tool that is not installed is skipped by name.
func TestConsoleConnectionStrings(t *testing.T) {
	s := newSignInSite(t)
	s.configureConsole("console: true", startDatabase(t))
	text, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	advertised := fmt.Sprintf(`listen: "127.0.0.1:0", advertise: {host: localhost, port: %d}`, s.where.Gateway.(*net.TCPAddr).Port)
	if err := os.WriteFile(s.config, []byte(strings.Replace(string(text), `listen: "127.0.0.1:0"`, advertised, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	s.reload()
	b := s.enter("1", "analyst")
	s.consoleCredential(b)
	p := newToolPage(t, b.page)
	s.goTo(b, "/console/daypass-ca.crt", 200)
	p.save("daypass-ca.crt", b.page)
	t.Run("psql", func(t *testing.T) {
		p.shell(t, p.text("psql")+` -XAtc "`+whoIsOn+`"`)
	})
	t.Run("Environment variables", func(t *testing.T) {
		p.shell(t, p.text("Environment variables")+"\npsql -XAtc '"+whoIsOn+"'")
	})
	t.Run("Password file", func(t *testing.T) {
		p.save("pgpass", p.text("Password file")+"\n")
		p.shell(t, "export PGPASSFILE=$PWD/pgpass; psql -XAtwc '"+whoIsOn+"' '"+
			"host="+p.fields["Host"]+" port="+p.fields["Port"]+" dbname="+p.fields["Database"]+" user="+p.fields["User name"]+" sslmode=verify-full sslrootcert=daypass-ca.crt'")
	})
	t.Run("URI in psql", func(t *testing.T) {
		p.shell(t, "psql -XAtc '"+whoIsOn+"' '"+p.text("URI")+"'")
	})
	t.Run("URI in pgx", func(t *testing.T) {
		t.Chdir(p.dir)
		conn, err := pgx.Connect(t.Context(), p.text("URI"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(context.WithoutCancel(t.Context()))
		var user string
		if err := conn.QueryRow(t.Context(), whoIsOn).Scan(&user); err != nil || user != "IAM:alice" {
			t.Errorf("session_user = %q, %v", user, err)
		}
	})
	t.Run("Form", func(t *testing.T) {
		// These names and values are those of a form; libpq has the same names for the modes.
		t.Chdir(p.dir)
		f := p.fields
		config, err := pgx.ParseConfig("host=" + f["Host"] + " port=" + f["Port"] + " dbname=" + f["Database"] + " user=" + f["User name"] +
			" password=" + f["Password"] + " sslmode=" + f["SSL mode"] + " sslrootcert=" + f["CA certificate"])
		if err != nil {
			t.Fatal(err)
		}
		conn, err := pgx.ConnectConfig(t.Context(), config)
		if err != nil {
			t.Fatal(err)
		}
		conn.Close(t.Context())
	})
	t.Run("JDBC", func(t *testing.T) {
		const jar = "/usr/share/java/postgresql.jar"
		if _, err := exec.LookPath("java"); err != nil || !exists(jar) {
			t.Skip("NOT TESTED with pgjdbc, which is not installed: apt-get install default-jdk-headless libpostgresql-jdbc-java")
		}
		p.save("Paste.java", `import java.sql.*;
public class Paste {
    public static void main(String[] args) throws Exception {
        try (Connection c = DriverManager.getConnection(args[0]); ResultSet r = c.createStatement().executeQuery(args[1])) {
            r.next();
            System.out.println(r.getString(1));
        }
    }
}
`)
		p.shell(t, "java -XX:TieredStopAtLevel=1 -cp "+jar+" Paste.java '"+p.text("JDBC")+"' '"+whoIsOn+"'")
	})
	t.Run("SQLAlchemy and pandas", func(t *testing.T) {
		python := ""
		for _, program := range []string{"python3", "/usr/bin/python3"} {
			if exec.Command(program, "-c", "from importlib.metadata import version; version('pandas'), version('psycopg'); assert version('sqlalchemy') >= '2'").Run() == nil {
				python = program
			}
		}
		if python == "" {
			t.Skip("NOT TESTED with pandas, SQLAlchemy 2 and psycopg 3, which are not installed: pip install pandas sqlalchemy psycopg")
		}
		p.save("paste.py", strings.Replace(p.text("SQLAlchemy and pandas"), "SELECT current_user", whoIsOn, 1))
		p.shell(t, python+" paste.py | grep -o 'IAM:.*'")
	})
}

// toolPage is the credential page, and a directory to paste its texts in.
type toolPage struct {
	t      *testing.T
	dir    string
	path   string // for programs
	texts  map[string]string
	fields map[string]string // of the form
}

func newToolPage(t *testing.T, page string) *toolPage {
	t.Helper()
	inst, err := pgtest.Installation()
	if err != nil {
		t.Fatal(err)
	}
	p := &toolPage{t: t, dir: t.TempDir(), path: os.Getenv("PATH") + ":" + inst.BinDir, texts: map[string]string{}, fields: map[string]string{}}
	for _, tool := range regexp.MustCompile(`(?s)<summary>([^<]*)</summary>(.*?)</details>`).FindAllStringSubmatch(page, -1) {
		if text := regexp.MustCompile(`(?s)<pre id="tool-\d+"[^>]*>(.*?)</pre>`).FindStringSubmatch(tool[2]); text != nil {
			p.texts[tool[1]] = html.UnescapeString(text[1])
		}
		for _, field := range regexp.MustCompile(`<dt>([^<]*)</dt><dd><code>([^<]*)</code>`).FindAllStringSubmatch(tool[2], -1) {
			p.fields[field[1]] = html.UnescapeString(field[2])
		}
	}
	// A text that no tool is given would be a text that no one has tried.
	want := []string{"Environment variables", "JDBC", "Password file", "SQLAlchemy and pandas", "URI", "psql"}
	var got []string
	for name := range p.texts {
		got = append(got, name)
	}
	if slices.Sort(got); !slices.Equal(got, want) {
		t.Fatalf("the page has texts for %q, and this test pastes %q", got, want)
	}
	return p
}

func (p *toolPage) text(name string) string { return p.texts[name] }

func (p *toolPage) save(name, text string) {
	p.t.Helper()
	if err := os.WriteFile(filepath.Join(p.dir, name), []byte(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

// shell runs a command in the directory, which has to print the session's user.
func (p *toolPage) shell(t *testing.T, command string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", "-c", command)
	cmd.Dir = p.dir
	cmd.Env = []string{"PATH=" + p.path, "HOME=" + p.dir, "LANG=C.UTF-8"}
	for _, kept := range []string{"JAVA_HOME", "LD_LIBRARY_PATH", "PYTHONPATH"} {
		if value, ok := os.LookupEnv(kept); ok {
			cmd.Env = append(cmd.Env, kept+"="+value)
		}
	}
	out, err := cmd.CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != "IAM:alice" {
		t.Errorf("%s\nprints %q, %v, want IAM:alice", command, out, err)
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
