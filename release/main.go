// Command release builds a release of Daypass from one commit: static binaries, archives, .deb and
// .rpm packages, the OCI image, the Helm chart, an SBOM of each binary, provenance, checksums and
// their signature. docs/releasing.md is the playbook.
//
// It needs Go, git and, to sign, ssh-keygen. It needs neither Docker nor root, and no network once
// the modules are downloaded. It publishes nothing, except that "release push" pushes the image.
// Two runs at the same commit with the same version of Go write the same bytes, on any machine and
// in any directory.
//
// It is a module of its own, so that the server does not depend on the packaging libraries.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

const usage = `Usage:
  release [flags]                  build a release into the directory of -out
  release push ARCHIVE REFERENCE   push an image that was built to a registry
  release generate                 write deploy/kubernetes and deploy/compose again

Examples:
  go run . -out ../dist
  go run . -commit v1.2.3 -platforms linux/amd64
  go run . -out ../dist -sign ~/.ssh/daypass-release
  go run . push ../dist/daypass_1.2.3_oci.tar registry.example.com/daypass:1.2.3

Flags:
`

// allPlatforms lists the platforms that a release is built for.
const allPlatforms = "linux/amd64,linux/arm64,darwin/amd64,darwin/arm64,windows/amd64,windows/arm64"

// options holds the flags.
type options struct {
	source, out, platforms string
	commit                 string
	sign, signers, builder string
}

func run(args []string, stdout io.Writer) error {
	var o options
	flags := flag.NewFlagSet("release", flag.ContinueOnError)
	flags.StringVar(&o.source, "source", "..", "the `DIRECTORY` of the repository")
	flags.StringVar(&o.commit, "commit", "HEAD", "the `COMMIT` or tag to build; changes that are in no commit are not built")
	flags.StringVar(&o.out, "out", "../dist", "the `DIRECTORY` to write to; it must not have files of its own")
	flags.StringVar(&o.platforms, "platforms", allPlatforms, "the platforms, `OS/ARCH,…`")
	flags.StringVar(&o.sign, "sign", "", "the SSH `KEY` to sign with: a private key file, or a public one whose private half is in ssh-agent")
	flags.StringVar(&o.signers, "signers", "", "the `FILE` of public keys that may sign (default release/allowed_signers)")
	flags.StringVar(&o.builder, "builder", "local", "the `URI` of what builds, for the provenance")
	flags.Usage = func() {
		fmt.Fprint(flags.Output(), usage)
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return nil
	} else if err != nil {
		return err
	}
	switch words := flags.Args(); {
	case len(words) == 0:
		return build(o, stdout)
	case words[0] == "push" && len(words) == 3:
		return push(words[1], words[2], stdout)
	case words[0] == "generate" && len(words) == 1:
		return generate(o.source)
	default:
		return fmt.Errorf("%s: is not understood: see release -help", strings.Join(words, " "))
	}
}

// build builds the release. The checksums and their signature are written last, so they exist
// only if everything else does.
func build(o options, stdout io.Writer) error {
	out, err := emptyDir(o.out)
	if err != nil {
		return err
	}
	stage, err := os.MkdirTemp("", "daypass-release-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(stage)
	r := &release{source: filepath.Join(stage, "source"), out: out, stage: stage, stdout: stdout}
	if err := r.checkOut(o.source, o.commit); err != nil {
		return err
	}
	if err := r.buildBinaries(o.platforms); err != nil {
		return err
	}
	if err := r.collectDocuments(); err != nil {
		return err
	}
	for _, step := range []func() error{r.writeSBOMs, r.writeArchives, r.writePackages, r.writeImage, r.writeChart,
		func() error { return r.writeProvenance(o.builder) }, r.writeChecksums} {
		if err := step(); err != nil {
			return err
		}
	}
	if o.sign == "" {
		r.say("NOT SIGNED: a release that others are to trust needs -sign KEY")
		return nil
	}
	signers := o.signers
	if signers == "" {
		signers = filepath.Join(r.source, "release", "allowed_signers")
	}
	return r.sign(o.sign, signers)
}

// emptyDir makes the directory. Files of an earlier release in it would be signed too.
func emptyDir(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(path, 0o755); err != nil {
		return "", err
	}
	found, err := os.ReadDir(path)
	if err != nil {
		return "", err
	}
	if len(found) > 0 {
		return "", fmt.Errorf("%s: is not empty: remove it, or name another directory with -out", path)
	}
	return path, nil
}
