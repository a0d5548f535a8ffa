package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/xml"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"text/template"
	"time"
	"unicode/utf16"

	"github.com/spf13/cobra"

	"github.com/daypass/daypass/internal/awsconfig"
	"github.com/daypass/daypass/internal/quote"
)

// The forms of `daypass proxy service`, by operating system.
var proxyServices = map[string]string{"linux": "systemd", "darwin": "launchd", "windows": "schtasks"}

func newProxyServiceCommand(env environment) *cobra.Command {
	var file, form string
	var install bool
	cmd := &cobra.Command{
		Use:   "service [--install]",
		Short: "Print or install a service of your user that runs the proxy while you are logged on",
		Long: `Service prints a user unit of systemd on Linux, an agent of launchd on macOS, and a
task for the task scheduler on Windows. It runs "daypass proxy" with the file of
maps, which has to exist, and with the variables that are set now and name the profile,
region, role, endpoint or files of AWS clients, DAYPASS_SSLROOTCERT and BROWSER, but no
access key (not on Windows: a task has the variables of its user).

--install writes it to where the system looks for it, and prints the commands that
start and remove it. Run it again when the program or the file has moved.`,
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
	User          string // on Windows: DOMAIN\user
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
	if _, err := (&proxyOptions{file: s.File}).load(); errors.Is(err, fs.ErrNotExist) {
		return nil, &exitError{awsconfig.ExitConfiguration, fmt.Errorf("%s: does not exist: write your maps into it (docs/people.md has an example), or name another file with --config", s.File)}
	} else if err != nil {
		return nil, err
	}
	if s.Program, err = os.Executable(); err != nil {
		return nil, err
	}
	if s.home, err = os.UserHomeDir(); err != nil {
		return nil, err
	}
	s.Log = filepath.Join(s.home, "Library", "Logs", "daypass-proxy.log")
	s.Graphical = graphicalSession()
	if me, err := user.Current(); err == nil {
		s.User = me.Username
	}
	s.Variables = serviceVariables(os.Environ())
	for _, text := range append([]string{s.Program, s.File, s.home, s.User}, values(s.Variables)...) {
		if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return nil, fmt.Errorf("%q: has control characters, which a service cannot have", text)
		}
	}
	return &s, nil
}

// serviceVariables returns the settings in an environment that a service needs, by name. It names
// each one, so that no secret gets into the file of the service.
func serviceVariables(environment []string) (kept []setting) {
	known := []string{"AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_LOGIN_CACHE_DIRECTORY", "AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION",
		"AWS_ENDPOINT_URL", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "AWS_CA_BUNDLE", "AWS_ROLE_ARN", "AWS_ROLE_SESSION_NAME", "AWS_WEB_IDENTITY_TOKEN_FILE",
		"AWS_EC2_METADATA_DISABLED", "DAYPASS_SSLROOTCERT", "BROWSER"}
	for _, variable := range slices.Sorted(slices.Values(environment)) {
		name, value, _ := strings.Cut(variable, "=")
		if value != "" && (slices.Contains(known, name) || strings.HasPrefix(name, "AWS_ENDPOINT_URL_")) {
			kept = append(kept, setting{name, value})
		}
	}
	return kept
}

// graphicalSession reports whether systemd starts and stops services with the person's graphical
// session. Many desktops and window managers do not do that, and DISPLAY is also set by ssh -X.
func graphicalSession() bool {
	if os.Getenv("DISPLAY") == "" && os.Getenv("WAYLAND_DISPLAY") == "" {
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return exec.CommandContext(ctx, "systemctl", "--user", "--quiet", "is-active", "graphical-session.target").Run() == nil
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
StartLimitIntervalSec=0

[Service]
# It is started once its ports listen.
Type=notify
ExecStart={{unit .Program}} proxy --config {{command .File}}
# A faulty file changes nothing, and the reload fails.
ExecReload={{unit .Program}} proxy --list --config {{command .File}}
ExecReload=/bin/kill -HUP $MAINPID
{{- range .Variables}}
Environment={{unit (printf "%s=%s" .Name .Value)}}
{{- end}}
# A browser that was opened for a sign-in stays when the proxy ends.
KillMode=process
UMask=0077
Restart=on-failure
RestartSec=2
# The file of maps is faulty.
RestartPreventExitStatus={{.Faulty}}
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
	<key>ProcessType</key>
	<string>Interactive</string>
	<key>StandardOutPath</key>
	<string>{{xml .Log}}</string>
	<key>StandardErrorPath</key>
	<string>{{xml .Log}}</string>
</dict>
</plist>
`,
	// What is set differs from the defaults, with which a task ends after three days and on
	// battery. Only an administrator may create a trigger for the logon of everyone.
	"schtasks": `<?xml version="1.0" encoding="UTF-16"?>
<!-- Made by "daypass proxy service". -->
<Task version="1.2" xmlns="http://schemas.microsoft.com/windows/2004/02/mit/task">
  <RegistrationInfo>
    <Description>Ports without a password for PostgreSQL clients, by Daypass</Description>
  </RegistrationInfo>
  <Triggers>
    <LogonTrigger>
      <UserId>{{xml .User}}</UserId>
    </LogonTrigger>
  </Triggers>
  <Principals>
    <Principal id="Author">
      <UserId>{{xml .User}}</UserId>
      <LogonType>InteractiveToken</LogonType>
      <RunLevel>LeastPrivilege</RunLevel>
    </Principal>
  </Principals>
  <Settings>
    <MultipleInstancesPolicy>IgnoreNew</MultipleInstancesPolicy>
    <DisallowStartIfOnBatteries>false</DisallowStartIfOnBatteries>
    <StopIfGoingOnBatteries>false</StopIfGoingOnBatteries>
    <ExecutionTimeLimit>PT0S</ExecutionTimeLimit>
    <Priority>5</Priority>
    <RestartOnFailure>
      <Interval>PT1M</Interval>
      <Count>255</Count>
    </RestartOnFailure>
  </Settings>
  <Actions Context="Author">
    <Exec>
      <Command>{{xml .Program}}</Command>
      <Arguments>proxy --config &quot;{{xml .File}}&quot;</Arguments>
    </Exec>
  </Actions>
</Task>
`,
}

// Faulty lists the exit codes of a proxy that will not start until its person changes the file.
func (*proxyService) Faulty() string {
	return fmt.Sprintf("%d %d", awsconfig.ExitUsage, awsconfig.ExitConfiguration)
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
	if form == "systemd" && strings.ContainsAny(s.Program, `"'\`) {
		return "", fmt.Errorf("%s: systemd starts no program with quotes or backslashes in its path: move it, or make a link to it and run that", s.Program)
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

// quoteForCommand is quoteForUnit for the arguments of a command line, in which systemd expands
// variables. It does not expand them in the path of the program.
func quoteForCommand(word string) string { return strings.ReplaceAll(quoteForUnit(word), "$", "$$") }

func quoteForXML(text string) (string, error) {
	var b bytes.Buffer
	err := xml.EscapeText(&b, []byte(text))
	return b.String(), err
}

// install writes a service to the place where the system looks for it.
func (s *proxyService) install(env environment, form, text string) error {
	path, err := s.path(form)
	if err != nil {
		return err
	}
	data, mark := []byte(text), []byte("Made by")
	if form == "schtasks" {
		data, mark = utf16File(text), utf16File("Made by")[2:]
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	old, err := os.ReadFile(path)
	if err == nil && !bytes.Equal(old, data) && !bytes.Contains(old, mark) {
		return fmt.Errorf("%s: is there, and was not made by this command: remove it first", path)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		return err
	}
	start, remove, err := s.commands(form, path, old != nil)
	if err == nil {
		_, err = fmt.Fprintf(env.stdout, "%s is written. Next:\n\n    %s\n\nTo remove the service:\n\n    %s\n", path, strings.Join(start, "\n    "), strings.Join(remove, "\n    "))
	}
	return err
}

// path returns where the system looks for the services of a user.
func (s *proxyService) path(form string) (string, error) {
	switch dir, err := os.UserConfigDir(); {
	case form == "launchd":
		return filepath.Join(s.home, "Library", "LaunchAgents", "daypass-proxy.plist"), nil
	case form == "systemd":
		return filepath.Join(dir, "systemd", "user", "daypass-proxy.service"), err
	default:
		return filepath.Join(dir, "daypass", "proxy-task.xml"), err
	}
}

// commands returns the commands that start and remove a service that is at path. It may run
// already with an earlier file.
func (s *proxyService) commands(form, path string, again bool) (start, remove []string, err error) {
	if form == "schtasks" {
		for _, v := range s.Variables {
			start = append(start, fmt.Sprintf(`setx %s "%s"`, v.name, v.value))
		}
		return append(start, `schtasks /Create /F /TN daypass-proxy /XML "`+path+`"`, "schtasks /Run /TN daypass-proxy"),
			[]string{"schtasks /End /TN daypass-proxy", "schtasks /Delete /F /TN daypass-proxy"}, nil
	}
	file, err := quote.Shell(path)
	if err != nil {
		return nil, nil, err
	}
	if form == "systemd" {
		return []string{"systemctl --user daemon-reload", "systemctl --user enable daypass-proxy", "systemctl --user restart daypass-proxy    # fails if the proxy does not start",
				"journalctl --user -u daypass-proxy -f       # what it does"},
			[]string{"systemctl --user disable --now daypass-proxy", "rm " + file}, nil
	}
	log, err := quote.Shell(s.Log)
	if again {
		start = []string{"launchctl bootout gui/$(id -u)/daypass-proxy"}
	}
	return append(start, "launchctl bootstrap gui/$(id -u) "+file, "tail -f "+log+"    # what it does"),
		[]string{"launchctl bootout gui/$(id -u)/daypass-proxy", "rm " + file}, err
}

// utf16File encodes a text as the task scheduler writes its own files: little endian, with a byte
// order mark.
func utf16File(text string) []byte {
	data := []byte{0xff, 0xfe}
	for _, unit := range utf16.Encode([]rune(text)) {
		data = binary.LittleEndian.AppendUint16(data, unit)
	}
	return data
}
