package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v3"
)

// generated holds the files that are generated from the chart and
// deploy/helm/values/single.yaml, so that they cannot differ from it: manifests for people
// without Helm, and a Compose project. Both have the version 0.0.0, which a release replaces.
type generated struct {
	manifests     []byte // deploy/kubernetes/daypass.yaml
	compose       []byte // deploy/compose/compose.yaml
	configuration []byte // deploy/compose/config/daypass.yaml
}

// files returns the generated files by path.
func (g generated) files() map[string][]byte {
	return map[string][]byte{
		filepath.Join("deploy", "kubernetes", "daypass.yaml"):        g.manifests,
		filepath.Join("deploy", "compose", "compose.yaml"):           g.compose,
		filepath.Join("deploy", "compose", "config", "daypass.yaml"): g.configuration,
	}
}

// generate writes the generated files to the source tree.
func generate(source string) error {
	g, err := render(source)
	if err != nil {
		return err
	}
	for name, data := range g.files() {
		path := filepath.Join(source, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// errNoHelm is returned if Helm is not installed.
var errNoHelm = errors.New("helm: is not installed: .ci/run says how to build it")

// helm finds Helm in PATH, or where .ci/run builds it.
func helm(source string) (string, error) {
	built, err := filepath.Abs(filepath.Join(source, ".cache", "tools", "helm"))
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(built); err == nil {
		return built, nil
	}
	if found, err := exec.LookPath("helm"); err == nil {
		return found, nil
	}
	return "", errNoHelm
}

// template renders the chart with values from deploy/helm/values.
func template(source, values string) ([]byte, error) {
	program, err := helm(source)
	if err != nil {
		return nil, err
	}
	return command(filepath.Join(source, "deploy", "helm"), nil, program, "template", "daypass", "daypass", "--namespace", "daypass", "--values", filepath.Join("values", values+".yaml"))
}

func render(source string) (g generated, err error) {
	manifests, err := template(source, "single")
	if err != nil {
		return g, err
	}
	var out bytes.Buffer
	out.WriteString("# Made by \"make manifests\" from deploy/helm with values/single.yaml: change those, or use Helm.\n" +
		"# What it needs beforehand is in docs/install.md. kubectl apply --namespace daypass --filename daypass.yaml\n")
	for line := range strings.Lines(string(manifests)) {
		// These labels name a Helm release, which does not exist here.
		if strings.Contains(line, "helm.sh/") || strings.Contains(line, "app.kubernetes.io/managed-by:") || strings.HasPrefix(line, "# Source:") {
			continue
		}
		if strings.TrimSpace(line) == "" || strings.TrimSpace(line) == "annotations:" {
			continue
		}
		out.WriteString(strings.TrimRight(line, " \n") + "\n")
	}
	g.manifests = out.Bytes()
	configuration, err := configurationOf(manifests)
	if err != nil {
		return g, err
	}
	g.configuration = append([]byte("# Made by \"make manifests\" from deploy/helm/values/single.yaml: change that, or this in a copy.\n"), configuration...)
	g.compose = []byte(composeFile)
	return g, nil
}

// configurationOf returns the daypass.yaml in the ConfigMap.
func configurationOf(manifests []byte) ([]byte, error) {
	for decoder := yaml.NewDecoder(bytes.NewReader(manifests)); ; {
		var object struct {
			Kind string            `yaml:"kind"`
			Data map[string]string `yaml:"data"`
		}
		if err := decoder.Decode(&object); err != nil {
			return nil, fmt.Errorf("finding the ConfigMap: %w", err)
		}
		if object.Kind == "ConfigMap" {
			return []byte(object.Data["daypass.yaml"]), nil
		}
	}
}

// composeFile mounts the same files as the chart, at the same paths. It mounts directories, because
// a file that is mounted by itself does not change when it is replaced.
const composeFile = `# Made by "make manifests". Daypass beside a PostgreSQL; config/daypass.yaml is the chart's, with values/single.yaml.
# Run ./prepare first: it makes the secrets and certificates that are mounted here.
name: daypass
services:
  daypass:
    image: ghcr.io/daypass/daypass:0.0.0
    command: [serve, --config=/etc/daypass/config/daypass.yaml, --drain=15s]
    user: "65532:65532"
    read_only: true
    cap_drop: [ALL]
    security_opt: ["no-new-privileges:true"]
    stop_grace_period: 30s
    restart: unless-stopped
    depends_on: [postgres]
    ports: ["8440:8440", "5439:5439"]
    volumes:
      - data:/var/lib/daypass
      - ./config:/etc/daypass/config:ro
      - ./secrets:/etc/daypass/secrets:ro
      - ./tls:/etc/daypass/tls:ro
  postgres:
    image: postgres:18
    command: [-c, ssl=on, -c, ssl_cert_file=/tls/tls.crt, -c, ssl_key_file=/tls/tls.key]
    environment: {POSTGRES_DB: dev, POSTGRES_PASSWORD_FILE: /superuser/password}
    restart: unless-stopped
    volumes:
      - postgres:/var/lib/postgresql
      - ./postgres/initdb:/docker-entrypoint-initdb.d:ro
      - ./postgres/superuser:/superuser:ro
      - ./postgres/tls:/tls:ro
volumes:
  data: {}
  postgres: {}
`
