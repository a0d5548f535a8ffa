//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
)

// unpackImage takes the image for amd64 out of the archive and unpacks its layers.
func unpackImage(t *testing.T, s site) (root string, config *v1.ConfigFile) {
	t.Helper()
	dir := t.TempDir()
	found, _ := filepath.Glob(filepath.Join(s.out, "*_oci.tar"))
	if err := untar(found[0], dir); err != nil {
		t.Fatal(err)
	}
	outer, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := outer.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	inner, err := outer.ImageIndex(manifest.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	images, err := inner.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	image, err := inner.Image(images.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	if config, err = image.ConfigFile(); err != nil {
		t.Fatal(err)
	}
	root = filepath.Join(t.TempDir(), "root")
	layers := mutate.Extract(image)
	defer layers.Close()
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	for parent := root; parent != os.TempDir() && parent != "/"; parent = filepath.Dir(parent) {
		if err := os.Chmod(parent, 0o755); err != nil { // the image's user needs access
			t.Fatal(err)
		}
	}
	unpack(t, layers, root)
	return root, config
}

// TestImage unpacks the image and runs it as a container runtime would: the root file system is
// read-only, the user is not root, and the volume is the only place to write to.
func TestImage(t *testing.T) {
	s := released(t)
	root, config := unpackImage(t, s)
	if config.Config.User != "65532:65532" || config.OS != "linux" || config.Architecture != "amd64" || config.Config.StopSignal != "SIGTERM" {
		t.Errorf("the image's configuration is %+v", config)
	}
	if os.Geteuid() != 0 {
		t.Log("NOT CHECKED: only root can mount the image's files")
		return
	}
	chroot, err := exec.LookPath("chroot")
	if err != nil {
		t.Fatal(err)
	}
	mounted := func(command string) *exec.Cmd {
		script := `mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && mount -t tmpfs -o uid=65532,gid=65532,mode=0770 none "$0/var/lib/daypass" && ` +
			`mount --bind "$1" "$0/etc/daypass" && exec "$2" --userspec=` + config.Config.User + ` "$0" ` + command
		cmd := exec.Command("unshare", "--mount", "sh", "-ec", script, root, filepath.Join(root, "etc", "daypass"), chroot)
		cmd.Env = config.Config.Env
		return cmd
	}
	if err := exec.Command("unshare", "--mount", "true").Run(); err != nil {
		t.Logf("NOT CHECKED: this machine lets no one mount anything: %v", err)
		return
	}
	out, err := mounted(strings.Join(config.Config.Entrypoint, " ") + " version").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "commit "+s.commit) {
		t.Errorf("version = %v\n%s", err, out)
	}

	api, gateway := freePort(t), freePort(t)
	text := fmt.Sprintf("account: \"123456789012\"\nregion: us-east-1\ndata: /var/lib/daypass/data\napi: {listen: %q}\ngateway: {listen: %q}\n", api, gateway)
	if err := os.WriteFile(filepath.Join(root, "etc", "daypass", "daypass.yaml"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	serve := mounted(strings.Join(append(config.Config.Entrypoint, config.Config.Cmd...), " "))
	var log bytes.Buffer
	serve.Stdout, serve.Stderr = &log, &log
	if err := serve.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- serve.Wait() }()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for answered := false; !answered; {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", gateway)
		if answered = err == nil; answered {
			conn.Close()
			continue
		}
		select {
		case err := <-ended:
			t.Fatalf("the server ended: %v\n%s", err, log.String())
		case <-ctx.Done():
			_ = serve.Process.Kill()
			t.Fatalf("the server does not listen\n%s", log.String())
		case <-time.After(50 * time.Millisecond):
		}
	}
	if err := serve.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("the server ended with %v\n%s", err, log.String())
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
