package main

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"go.yaml.in/yaml/v3"
)

// valueSets are the examples of deploy/helm/values.
var valueSets = []string{"single", "several", "stateless"}

func withHelm(t *testing.T) string {
	t.Helper()
	program, err := helm("..")
	if errors.Is(err, errNoHelm) {
		t.Skip("NOT TESTED with Helm: it is not available")
	}
	return program
}

// TestChart lints the chart with Helm, renders it with three sets of values, validates the
// manifests with the schemas of Kubernetes, and has the server check its configuration.
func TestChart(t *testing.T) {
	program := withHelm(t)
	for _, values := range valueSets {
		t.Run(values, func(t *testing.T) {
			if out, err := command("../deploy/helm", nil, program, "lint", "--strict", "daypass", "--values", "values/"+values+".yaml"); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
			manifests, err := template("..", values)
			if err != nil {
				t.Fatal(err)
			}
			kinds := checkManifests(t, manifests)
			want := map[string]string{"single": "Deployment", "several": "StatefulSet", "stateless": "Deployment"}[values]
			if kinds[want] != 1 || kinds["Service"] != 3 || kinds["ConfigMap"] != 1 {
				t.Errorf("the objects are %v, want a %s, three Services and a ConfigMap", kinds, want)
			}
			validate(t, manifests)
			configuration, err := configurationOf(manifests)
			if err != nil {
				t.Fatal(err)
			}
			checkConfiguration(t, configuration)
		})
	}
}

// checkManifests looks for fields that manifests must not have, and counts the kinds.
func checkManifests(t *testing.T, manifests []byte) map[string]int {
	t.Helper()
	kinds := map[string]int{}
	for decoder := yaml.NewDecoder(bytes.NewReader(manifests)); ; {
		var object struct {
			Kind string `yaml:"kind"`
			Spec struct {
				Template struct {
					Spec struct {
						AutomountServiceAccountToken  *bool `yaml:"automountServiceAccountToken"`
						TerminationGracePeriodSeconds int   `yaml:"terminationGracePeriodSeconds"`
						SecurityContext               struct {
							RunAsNonRoot bool `yaml:"runAsNonRoot"`
							RunAsUser    int  `yaml:"runAsUser"`
						} `yaml:"securityContext"`
						Containers []struct {
							SecurityContext struct {
								AllowPrivilegeEscalation *bool `yaml:"allowPrivilegeEscalation"`
								ReadOnlyRootFilesystem   bool  `yaml:"readOnlyRootFilesystem"`
								Capabilities             struct {
									Drop []string `yaml:"drop"`
								} `yaml:"capabilities"`
							} `yaml:"securityContext"`
							ReadinessProbe map[string]any `yaml:"readinessProbe"`
							LivenessProbe  map[string]any `yaml:"livenessProbe"`
							StartupProbe   map[string]any `yaml:"startupProbe"`
							Args           []string       `yaml:"args"`
							Lifecycle      struct {
								PreStop struct{ Sleep struct{ Seconds int } } `yaml:"preStop"`
							} `yaml:"lifecycle"`
							VolumeMounts []map[string]any `yaml:"volumeMounts"`
						} `yaml:"containers"`
					} `yaml:"spec"`
				} `yaml:"template"`
			} `yaml:"spec"`
		}
		if err := decoder.Decode(&object); errors.Is(err, io.EOF) {
			return kinds
		} else if err != nil {
			t.Fatal(err)
		}
		kinds[object.Kind]++
		if object.Kind != "Deployment" && object.Kind != "StatefulSet" {
			continue
		}
		pod := object.Spec.Template.Spec
		if len(pod.Containers) != 1 {
			t.Fatalf("the pod has %d containers, want 1", len(pod.Containers))
		}
		c := pod.Containers[0]
		if !pod.SecurityContext.RunAsNonRoot || pod.SecurityContext.RunAsUser != imageUser || pod.AutomountServiceAccountToken == nil || *pod.AutomountServiceAccountToken ||
			!c.SecurityContext.ReadOnlyRootFilesystem || c.SecurityContext.AllowPrivilegeEscalation == nil || *c.SecurityContext.AllowPrivilegeEscalation ||
			len(c.SecurityContext.Capabilities.Drop) != 1 || c.SecurityContext.Capabilities.Drop[0] != "ALL" {
			t.Errorf("the pod may do more than it needs: %+v", pod)
		}
		if c.ReadinessProbe == nil || c.LivenessProbe == nil || c.StartupProbe == nil {
			t.Errorf("the pod has the probes %v, %v and %v, want all three", c.ReadinessProbe, c.LivenessProbe, c.StartupProbe)
		}
		const ends = 10 // seconds: sessions that are ended have 5 to leave
		drain := 0
		for _, arg := range c.Args {
			if text, found := strings.CutPrefix(arg, "--drain="); found {
				drain, _ = strconv.Atoi(strings.TrimSuffix(text, "s"))
			}
		}
		if least := c.Lifecycle.PreStop.Sleep.Seconds + drain + ends; drain == 0 || pod.TerminationGracePeriodSeconds < least {
			t.Errorf("the pod has %d s to end, want %d at least: preStop, a drain of %d s, and the ends", pod.TerminationGracePeriodSeconds, least, drain)
		}
		for _, mount := range c.VolumeMounts {
			if mount["subPath"] != nil {
				t.Errorf("%v is mounted by subPath: it would not change", mount)
			}
		}
	}
}

// TestEgress: where an example restricts egress, every port that its configuration connects to is open.
func TestEgress(t *testing.T) {
	withHelm(t)
	restricted := 0
	for _, values := range valueSets {
		manifests, err := template("..", values)
		if err != nil {
			t.Fatal(err)
		}
		open := map[int]bool{}
		for decoder := yaml.NewDecoder(bytes.NewReader(manifests)); ; {
			var object struct {
				Kind string
				Spec struct {
					Egress []struct{ Ports []struct{ Port int } }
				}
			}
			if err := decoder.Decode(&object); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			if object.Kind == "NetworkPolicy" {
				for _, rule := range object.Spec.Egress {
					for _, port := range rule.Ports {
						open[port.Port] = true
					}
				}
			}
		}
		if len(open) == 0 {
			continue
		}
		restricted++
		configuration, err := configurationOf(manifests)
		if err != nil {
			t.Fatal(err)
		}
		needed := map[int]string{53: "DNS"}
		for _, found := range regexp.MustCompile(`(?:(https?|postgres)://(?:[^/@\s]*@)?[^/:\s]+(?::(\d+))?|peers:\s+listen: [0-9.]+:(\d+))`).FindAllStringSubmatch(string(configuration), -1) {
			port, _ := strconv.Atoi(found[2] + found[3])
			if port == 0 {
				port = map[string]int{"http": 80, "https": 443, "postgres": 5432}[found[1]]
			}
			needed[port] = found[0]
		}
		for port, what := range needed {
			if !open[port] {
				t.Errorf("%s: the NetworkPolicy keeps the server from port %d: %s", values, port, what)
			}
		}
	}
	if restricted == 0 {
		t.Error("no example restricts egress")
	}
}

// validate checks the manifests with Kubernetes' own schemas.
func validate(t *testing.T, manifests []byte) {
	t.Helper()
	const tool = "../.cache/tools/kubectl-validate"
	if _, err := os.Stat(tool); err != nil {
		t.Log("NOT CHECKED against the schemas of Kubernetes: kubectl-validate is not available")
		return
	}
	dir, args := t.TempDir(), []string{"--version", "1.30"}
	crds := "../.cache/tools/crds"
	if _, err := os.Stat(crds); err == nil {
		args = append(args, "--local-crds", crds)
	} else {
		t.Log("NOT CHECKED against the schema of ServiceMonitors: it is not available")
		manifests = withoutKind(manifests, "ServiceMonitor")
	}
	if err := os.WriteFile(filepath.Join(dir, "manifests.yaml"), manifests, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(tool, append(args, dir)...).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// withoutKind returns the manifests without the objects of a kind.
func withoutKind(manifests []byte, kind string) []byte {
	documents := strings.Split(string(manifests), "\n---\n")
	documents = slices.DeleteFunc(documents, func(document string) bool { return strings.Contains(document, "kind: "+kind) })
	return []byte(strings.Join(documents, "\n---\n"))
}

// checkConfiguration runs the program's own check on a configuration. The files that it names are
// mounted elsewhere, so checkConfiguration writes them next to a copy of it.
func checkConfiguration(t *testing.T, configuration []byte) {
	t.Helper()
	s := released(t)
	root, _ := unpackImage(t, s)
	dir := t.TempDir()
	text := strings.ReplaceAll(string(configuration), "/etc/daypass/", dir+"/")
	put := func(name string, data []byte) {
		if err := errors.Join(os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700), os.WriteFile(filepath.Join(dir, name), data, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	for _, use := range []string{"api", "gateway", "etcd"} {
		certificate, key := selfSigned(t)
		put("tls/"+use+"/tls.crt", certificate)
		put("tls/"+use+"/tls.key", key)
		put("tls/"+use+"/ca.crt", certificate)
		put("secrets/upstream/ca.crt", certificate)
	}
	for _, secret := range []string{"secrets/upstream/password", "secrets/access-keys/ana", "etcd-password/password"} {
		put(secret, []byte("a secret of more than sixteen characters\n"))
	}
	put("root-key/root.key", []byte(base64.StdEncoding.EncodeToString(make([]byte, 32))+"\n"))
	put("daypass.yaml", []byte(text))
	cmd := exec.Command(filepath.Join(root, "usr/bin/daypass"), "config", "check", "--strict", "--config", filepath.Join(dir, "daypass.yaml"))
	cmd.Env = append(os.Environ(), "DAYPASS_UPSTREAM_PASSWORD=a secret of more than sixteen characters")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("the server does not take the chart's configuration: %v\n%s\n%s", err, out, text)
	}
}

// TestChartRefuses: the chart refuses values with which the server would start but not work.
func TestChartRefuses(t *testing.T) {
	program := withHelm(t)
	for values, want := range map[string]string{
		"replicas=2":                    "servers need etcd.endpoints",
		"rootKey.secretName=daypass":    "needs etcd.endpoints",
		"config.root_key.file=root.key": "config.root_key: is set by the chart",
		"config.data=/data":             "config.data: is set by the chart",
		"config.api.listen=0.0.0.0:80":  "use api.port",
		"config.region=":                "region",
		"config.account=12":             "account",
		"persistance.enabled=false":     "persistance",
		"api.tls.secretName=":           "secretName",
		"image.digest=latest":           "digest",
		"api.service.type=ExternalName": "type",
		"drainSeconds=15s":              "drainSeconds",
	} {
		_, err := command("../deploy/helm", nil, program, "template", "daypass", "daypass", "--values", "values/single.yaml", "--set", values)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("--set %s = %v, want an error with %q", values, err, want)
		}
	}
	for values, want := range map[string]string{
		"rootKey.secretName=":          "need rootKey.secretName",
		"keyring.secretName=daypass":   "set one of them",
		"gateway.tls.secretName=":      "need gateway.tls.secretName",
		"persistence.existingClaim=pv": "is for a single server",
	} {
		_, err := command("../deploy/helm", nil, program, "template", "daypass", "daypass", "--values", "values/several.yaml", "--set", values)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("several servers with --set %s = %v, want an error with %q", values, err, want)
		}
	}
}

// TestChartOfRelease: Helm accepts the packed chart, which has the release's version.
func TestChartOfRelease(t *testing.T) {
	program, s := withHelm(t), released(t)
	found, _ := filepath.Glob(filepath.Join(s.out, "daypass-chart-*.tgz"))
	out, err := command("..", nil, program, "template", "daypass", found[0], "--values", "deploy/helm/values/single.yaml")
	if err != nil || !strings.Contains(string(out), "image: \"ghcr.io/daypass/daypass:"+s.version+"\"") {
		t.Errorf("%v, want the image of %s in\n%.3000s", err, s.version, out)
	}
}

// TestGeneratedIsCurrent: the manifests and the Compose project match the chart.
func TestGeneratedIsCurrent(t *testing.T) {
	withHelm(t)
	g, err := render("..")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range g.files() {
		got, err := os.ReadFile(filepath.Join("..", name))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not what the chart says, %v: run make manifests", name, err)
		}
	}
	validate(t, g.manifests)
}

// TestCompose reads the project with Compose's own library, and compares the mounts with the
// paths in the configuration.
func TestCompose(t *testing.T) {
	options, err := cli.NewProjectOptions([]string{"../deploy/compose/compose.yaml"}, cli.WithName("daypass"))
	if err != nil {
		t.Fatal(err)
	}
	project, err := options.LoadProject(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	service := project.Services["daypass"]
	if !service.ReadOnly || service.User != "65532:65532" || len(service.CapDrop) != 1 || service.CapDrop[0] != "ALL" {
		t.Errorf("the service may do more than it needs: %+v", service)
	}
	configuration, err := os.ReadFile("../deploy/compose/config/daypass.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range strings.FieldsFunc(string(configuration), func(r rune) bool { return strings.ContainsRune(" =\n&?\"", r) }) {
		if !strings.HasPrefix(word, "/") {
			continue
		}
		mounted := false
		for _, volume := range service.Volumes {
			mounted = mounted || strings.HasPrefix(word, volume.Target+"/")
		}
		if !mounted {
			t.Errorf("the configuration names %s, which is not mounted", word)
		}
	}
}

// TestSystemdUnit checks the unit of the packages with systemd.
func TestSystemdUnit(t *testing.T) {
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("NOT TESTED with systemd: systemd-analyze is not available")
	}
	text, err := os.ReadFile("../deploy/systemd/daypass.service")
	if err != nil {
		t.Fatal(err)
	}
	unit := filepath.Join(t.TempDir(), "daypass.service")
	program, err := exec.LookPath("true")
	if err != nil {
		t.Fatal(err)
	}
	text = bytes.ReplaceAll(text, []byte("/usr/bin/daypass"), []byte(program)) // the program is not installed here
	if err := os.WriteFile(unit, text, 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("systemd-analyze", "verify", "--man=no", "--recursive-errors=no", unit).CombinedOutput()
	if err != nil || len(bytes.TrimSpace(out)) > 0 {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
	out, err = exec.Command("systemd-analyze", "security", "--offline=true", "--threshold=20", unit).CombinedOutput()
	if err != nil {
		t.Errorf("systemd-analyze security: more than 2.0 of 10 is open: %v\n%s", err, out)
	}
}
