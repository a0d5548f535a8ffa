package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"html"
	"io"
	"maps"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/daypass/daypass/internal/login"
)

// waitBriefly takes the place of the interval between a device's requests. The person's page waits for the
// next request, and the device for the one after the answer.
func waitBriefly(ctx context.Context, d time.Duration) error {
	return login.Wait(ctx, min(d, 250*time.Millisecond))
}

// deviceSite is a server with a provider whose people have no passwords, and the environment of
// a person's machine.
type deviceSite struct {
	t   *testing.T
	api string
	env []string
}

// command is a command line of the binary, in the environment of the machine.
func (s *deviceSite) command(args ...string) *exec.Cmd { return s.program("daypass", args...) }

func (s *deviceSite) program(name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(s.t.Context(), name, args...)
	cmd.Env = s.env
	return cmd
}

var (
	codeShown  = regexp.MustCompile(`^[A-Z]{4}-[A-Z]{4}$`)
	formFields = regexp.MustCompile(`<input type="hidden" name="([^"]*)" value="([^"]*)">`)
	formAction = regexp.MustCompile(`action="([^"]*)"`)
)

// answer does what the person does in the browser: sign in, enter the code, choose and answer.
func (s *deviceSite) answer(cmd *exec.Cmd, page, code string, fields url.Values) {
	if err := s.browse(page, url.Values{"person": {"ana"}}, url.Values{"user_code": {code}}, fields); err != nil {
		s.t.Errorf("the person, with %v: %v", fields, err)
		_ = cmd.Process.Kill()
	}
}

// browse opens a page and sends its form, and those of the pages that follow.
func (s *deviceSite) browse(page string, forms ...url.Values) error {
	jar, _ := cookiejar.New(nil)
	browser := &http.Client{Jar: jar, Timeout: 30 * time.Second}
	response, err := browser.Get(page)
	for _, fields := range forms {
		if err != nil {
			return err
		}
		body, _ := io.ReadAll(response.Body)
		response.Body.Close()
		action := formAction.FindStringSubmatch(string(body))
		if action == nil {
			action = []string{"", ""} // the provider's form leads to its own page
		}
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("before %v: %s\n%s", fields, response.Status, body)
		}
		form := url.Values{}
		for _, field := range formFields.FindAllStringSubmatch(string(body), -1) {
			form.Set(field[1], html.UnescapeString(field[2]))
		}
		maps.Copy(form, fields)
		to, parseErr := response.Request.URL.Parse(html.UnescapeString(action[1]))
		if parseErr != nil {
			return parseErr
		}
		response, err = browser.PostForm(to.String(), form)
	}
	if err != nil {
		return err
	}
	response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return errors.New(response.Status)
	}
	return nil
}

// login runs `daypass login --device`. person gets the page and the code.
func (s *deviceSite) login(person func(cmd *exec.Cmd, page, code string)) (output string, code int) {
	s.t.Helper()
	cmd := s.program("daypass-brief-waits", "login", "--device", "--endpoint-url", s.api, "--region", "us-east-1", "--profile", "far")
	stderr, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		s.t.Fatal(err)
	}
	page := ""
	for lines := bufio.NewScanner(stderr); lines.Scan(); {
		output += lines.Text() + "\n"
		switch {
		case strings.HasPrefix(lines.Text(), "http"):
			page = lines.Text()
		case codeShown.MatchString(lines.Text()):
			go person(cmd, page, lines.Text())
		}
	}
	var failed *exec.ExitError
	if err := cmd.Wait(); errors.As(err, &failed) {
		return output, failed.ExitCode()
	} else if err != nil {
		s.t.Fatal(err)
	}
	return output, 0
}

// testDeviceLogin signs in with the binary and a code, and works with what it has left: the binary,
// and the AWS CLI's way of reading a profile.
func testDeviceLogin(t *testing.T, api, ca string) {
	dir := t.TempDir()
	s := &deviceSite{t: t, api: api, env: []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "AWS_EC2_METADATA_DISABLED=true", "SSH_CONNECTION=192.0.2.1 1 192.0.2.2 22"}}

	out, code := s.login(func(cmd *exec.Cmd, page, code string) { s.answer(cmd, page, code, url.Values{"answer": {"deny"}}) })
	if code != 254 || !strings.Contains(out, "denied in the browser") {
		t.Errorf("denied: exit code %d\n%s", code, out)
	}
	out, code = s.login(func(cmd *exec.Cmd, _, _ string) { _ = cmd.Process.Signal(os.Interrupt) })
	if code != 130 || !strings.Contains(out, "interrupted") {
		t.Errorf("Ctrl-C: exit code %d\n%s", code, out)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".aws", "*")); len(left) > 0 {
		t.Errorf("these sign-ins have left %v", left)
	}
	out, code = s.login(func(cmd *exec.Cmd, page, code string) {
		if page != api+"/device" {
			t.Errorf("the page is %q", page)
		}
		s.answer(cmd, page, code, url.Values{"role": {"analyst"}, "answer": {"allow"}})
	})
	if code != 0 || !strings.Contains(out, "You are signed in as arn:aws:sts::123456789012:assumed-role/analyst/ana@example.com, in the profile far") {
		t.Fatalf("allowed: exit code %d\n%s", code, out)
	}
	for _, row := range []struct {
		args []string
		want string
	}{
		{[]string{"whoami", "--profile", "far"}, "assumed-role/analyst/ana@example.com\nkeys until "},
		{[]string{"whoami", "--profile", "far", "--output", "json"}, `assumed-role/analyst/ana@example.com",
    "KeysUntil": "20`},
		{[]string{"connect", "examplecluster", "dev", "--profile", "far", "--user", "alice", "--groups", "analysts", "--sslrootcert", ca, "--", "-XAtc", "SELECT current_user"}, "IAM:alice:analysts\n"},
		{[]string{"credential-process", "--profile", "far"}, `"Version":1`},
		{[]string{"logout", "--profile", "far"}, "Signed out of the profile far"},
	} {
		out, err := s.command(row.args...).CombinedOutput()
		if err != nil || !strings.Contains(string(out), row.want) {
			t.Errorf("daypass %q: %v\n%s, want %q", row.args, err, out, row.want)
		}
	}
	// Over SSH other commands sign in this way too; without a terminal they say what to do.
	if out, err := s.command("whoami", "--profile", "far").CombinedOutput(); err == nil || !strings.Contains(string(out), "daypass login --profile far") {
		t.Errorf("after the logout: %v\n%s", err, out)
	}
}
