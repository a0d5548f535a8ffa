package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestProxyExamples checks the configurations in docs/proxies.md with nginx and HAProxy.
func TestProxyExamples(t *testing.T) {
	text, err := os.ReadFile("../docs/proxies.md")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certificate, key := selfSigned(t)
	for name, data := range map[string][]byte{"daypass.crt": certificate, "daypass.key": key, "daypass-ca.crt": certificate} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	judged := 0
	for _, found := range regexp.MustCompile("(?s)```(nginx|haproxy)\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
		program, configuration := found[1], strings.ReplaceAll(found[2], "/etc/nginx/", dir+"/")
		if _, err := exec.LookPath(program); err != nil {
			t.Logf("NOT CHECKED with %s: it is not available", program)
			continue
		}
		file := filepath.Join(dir, program+".conf")
		args := []string{"-c", "-f", file}
		if program == "nginx" {
			// "nginx -t" opens the listeners, and Debian packages the stream module as a separate
			// file.
			configuration = regexp.MustCompile(`listen (443|5439)`).ReplaceAllString(configuration, "listen unix:"+dir+"/$1")
			configuration = "pid " + dir + "/pid;\nerror_log stderr;\nevents {}\n" + strings.Replace(configuration, "http {", "http {\n    access_log off;", 1)
			if module := "/usr/lib/nginx/modules/ngx_stream_module.so"; strings.Contains(configuration, "stream {") {
				if _, err := os.Stat(module); err == nil {
					configuration = "load_module " + module + ";\n" + configuration
				}
			}
			args = []string{"-t", "-e", "stderr", "-c", file}
		}
		if err := os.WriteFile(file, []byte(configuration), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command(program, args...).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s\n%s", program, err, out, configuration)
		}
		judged++
	}
	t.Logf("%d configurations were judged", judged)
}
