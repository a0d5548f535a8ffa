package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"text/template"

	"github.com/spf13/cobra"
)

// The forms of `daypass proxy service`, by operating system.
var proxyServices = map[string]string{"linux": "systemd", "darwin": "launchd", "windows": "schtasks"}

func newProxyServiceCommand(env environment) *cobra.Command {
	var file, form string
	var install bool
	cmd := &cobra.Command{
		Use:   "service [--install]",
		Short: "Print or install a service of your user that runs the proxy while you are logged on",
		Long: `Service prints a user unit of systemd on Linux, an agent of launchd on macOS, and the
command for the task scheduler on Windows. It runs "daypass proxy" with the file of
maps, which has to exist, and with the variables AWS_*, DAYPASS_SSLROOTCERT and BROWSER that are set now
and hold no secret.

--install writes it to where the system looks for it, and prints the command that
starts it.`,
		Example: `  daypass proxy service
  daypass proxy service --install`,
		Args: noWords,
		RunE: func(*cobra.Command, []string) error {
			if form == "" {
				form = proxyServices[runtime.GOOS]
			}
			s, err := newProxyService(file)
			if err != nil {
				return err
			}
			text, err := s.render(form)
			if err != nil {
				return err
			}
			if !install {
				_, err = fmt.Fprint(env.stdout, text)
				return err
			}
			return s.install(env, form, text)
		},
	}
	cmd.Flags().StringVarP(&file, "config", "c", "", "`FILE` of maps (default proxy.yaml in your configuration directory)")
	cmd.Flags().StringVar(&form, "for", "", "systemd, launchd or schtasks (default: that of this system)")
	cmd.Flags().BoolVar(&install, "install", false, "write it to where the system looks for it")
	completeWith(cmd, "for", "systemd", "launchd", "schtasks")
	return cmd
}

// proxyService is what the templates need.
type proxyService struct {
	Program, File string
	Variables     []setting
	Graphical     bool // the person has a graphical session, in which browsers open
	Log           string
	home          string
}

// newProxyService returns the service for a file of maps, once it has checked that the service
// would start.
func newProxyService(file string) (*proxyService, error) {
	var s proxyService
	var err error
	if s.File = file; file == "" {
		s.File, err = proxyFile()
	}
	if err == nil {
		s.File, err = filepath.Abs(s.File)
	}
	if err != nil {
		return nil, err
	}
	if _, err := (&proxyOptions{file: s.File}).load(); err != nil {
		return nil, err
	}
	if s.Program, err = os.Executable(); err != nil {
		return nil, err
	}
	if s.home, err = os.UserHomeDir(); err != nil {
		return nil, err
	}
	s.Log = filepath.Join(s.home, "Library", "Logs", "daypass-proxy.log")
	s.Graphical = os.Getenv("DISPLAY") != "" || os.Getenv("WAYLAND_DISPLAY") != ""
	for _, name := range []string{"AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_LOGIN_CACHE_DIRECTORY", "AWS_PROFILE", "AWS_REGION", "AWS_ENDPOINT_URL", "AWS_CA_BUNDLE",
		"DAYPASS_SSLROOTCERT", "BROWSER"} {
		if value := os.Getenv(name); value != "" {
			s.Variables = append(s.Variables, setting{name, value})
		}
	}
	for _, text := range append([]string{s.Program, s.File, s.home}, values(s.Variables)...) {
		if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return nil, fmt.Errorf("%q: has control characters, which a service cannot have", text)
		}
	}
	return &s, nil
}

func values(all []setting) []string {
	var texts []string
	for _, s := range all {
		texts = append(texts, s.value)
	}
	return texts
}

// Name and Value are for the templates.
func (s setting) Name() string  { return s.name }
func (s setting) Value() string { return s.value }

var proxyUnit = map[string]string{
	"systemd": `# Made by "daypass proxy service".
[Unit]
Description=Ports without a password for PostgreSQL clients, by Daypass
Documentation=https://github.com/daypass/daypass/blob/main/docs/people.md
{{- if .Graphical}}
# Browsers open in the graphical session only.
After=graphical-session.target
PartOf=graphical-session.target
{{- end}}

[Service]
Type=exec
ExecStart={{command .Program}} proxy --config {{command .File}}
ExecReload=/bin/kill -HUP $MAINPID
{{- range .Variables}}
Environment={{unit (printf "%s=%s" .Name .Value)}}
{{- end}}
# A browser that was opened for a sign-in stays when the proxy ends.
KillMode=process
UMask=0077
Restart=on-failure
RestartSec=2
# It ends by itself, 10 seconds and some after SIGTERM.
TimeoutStopSec=20

[Install]
WantedBy={{if .Graphical}}graphical-session.target{{else}}default.target{{end}}
`,
	"launchd": `<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<!-- Made by "daypass proxy service". -->
<plist version="1.0">
<dict>
	<key>Label</key>
	<string>daypass-proxy</string>
	<key>ProgramArguments</key>
	<array>
		<string>{{xml .Program}}</string>
		<string>proxy</string>
		<string>--config</string>
		<string>{{xml .File}}</string>
	</array>
{{- if .Variables}}
	<key>EnvironmentVariables</key>
	<dict>
{{- range .Variables}}
		<key>{{xml .Name}}</key>
		<string>{{xml .Value}}</string>
{{- end}}
	</dict>
{{- end}}
	<key>RunAtLoad</key>
	<true/>
	<key>KeepAlive</key>
	<dict>
		<key>SuccessfulExit</key>
		<false/>
	</dict>
	<key>AbandonProcessGroup</key>
	<true/>
	<key>Umask</key>
	<integer>63</integer>
	<key>StandardErrorPath</key>
	<string>{{xml .Log}}</string>
</dict>
</plist>
`,
	"schtasks": `schtasks /Create /F /TN daypass-proxy /SC ONLOGON /TR "\"{{.Program}}\" proxy --config \"{{.File}}\""
`,
}

// render makes the text of a service.
func (s *proxyService) render(form string) (string, error) {
	text, ok := proxyUnit[form]
	if !ok {
		return "", usageErrorf("--for %s: must be systemd, launchd or schtasks", form)
	}
	if form == "schtasks" && strings.ContainsAny(s.Program+s.File, `"%`) {
		return "", errors.New("the paths of the program and of the file of maps must not contain \" or %")
	}
	t := template.Must(template.New(form).Funcs(template.FuncMap{"unit": quoteForUnit, "command": quoteForCommand, "xml": quoteForXML}).Parse(text))
	var b strings.Builder
	err := t.Execute(&b, s)
	return b.String(), err
}

// quoteForUnit writes a word of a systemd unit: systemd.syntax(7), "Quoting", and the specifiers
// of systemd.unit(5).
func quoteForUnit(word string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "%", "%%").Replace(word) + `"`
}

// quoteForCommand is quoteForUnit for a command line, in which systemd expands variables.
func quoteForCommand(word string) string { return strings.ReplaceAll(quoteForUnit(word), "$", "$$") }

func quoteForXML(text string) (string, error) {
	var b bytes.Buffer
	err := xml.EscapeText(&b, []byte(text))
	return b.String(), err
}

// install writes a service to the place where the system looks for it.
func (s *proxyService) install(env environment, form, text string) error {
	var path string
	var next []string
	switch form {
	case "systemd":
		dir, err := os.UserConfigDir()
		if err != nil {
			return err
		}
		path = filepath.Join(dir, "systemd", "user", "daypass-proxy.service")
		next = []string{"systemctl --user daemon-reload", "systemctl --user enable --now daypass-proxy", "journalctl --user -u daypass-proxy -f    # what it does"}
	case "launchd":
		path = filepath.Join(s.home, "Library", "LaunchAgents", "daypass-proxy.plist")
		next = []string{"launchctl bootstrap gui/$(id -u) " + path, "tail -f " + s.Log + "    # what it does"}
	default:
		return usageErrorf("--install: not for %s: run the command that is printed without it", form)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if old, err := os.ReadFile(path); err == nil && !slices.Equal(old, []byte(text)) && !bytes.Contains(old, []byte("Made by")) {
		return fmt.Errorf("%s: is there, and was not made by this command: remove it first", path)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		return err
	}
	_, err := fmt.Fprintf(env.stdout, "%s is written. Next:\n\n    %s\n", path, strings.Join(next, "\n    "))
	return err
}
