package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"

	cdx "github.com/CycloneDX/cyclonedx-go"
	provenance "github.com/in-toto/attestation/go/predicates/provenance/v1"
	attestation "github.com/in-toto/attestation/go/v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"
)

// writeSBOMs writes an SBOM for each binary, from the build information in the binary.
func (r *release) writeSBOMs() error {
	for i := range r.binaries {
		b := &r.binaries[i]
		var err error
		if b.sbom, err = r.sbom(*b); err != nil {
			return err
		}
		if err := r.write(fmt.Sprintf("daypass_%s_%s.cdx.json", r.number(), b.platform()), b.sbom); err != nil {
			return err
		}
	}
	return nil
}

// sbom returns a CycloneDX document: the program, Go's standard library, and each module with
// the checksum of its source from go.sum.
func (r *release) sbom(b binary) ([]byte, error) {
	component := func(kind cdx.ComponentType, path, version, sum string) cdx.Component {
		purl := "pkg:golang/" + path + "@" + version
		c := cdx.Component{BOMRef: purl, Type: kind, Name: path, Version: version, PackageURL: purl}
		// An h1: sum is the SHA-256 of a list of the files' SHA-256 sums, as in go.sum.
		if digest, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(sum, "h1:")); err == nil && sum != "" {
			c.Hashes = &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: hex.EncodeToString(digest)}}
		}
		return c
	}
	program := component(cdx.ComponentTypeApplication, b.info.Main.Path, r.version, "")
	sum := sha256.Sum256(b.data)
	program.Hashes = &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: hex.EncodeToString(sum[:])}}
	program.Licenses = &cdx.Licenses{{License: &cdx.License{ID: "Apache-2.0"}}}
	properties := []cdx.Property{}
	for _, setting := range b.info.Settings {
		properties = append(properties, cdx.Property{Name: "go:build:" + setting.Key, Value: setting.Value})
	}
	program.Properties = &properties

	parts := []cdx.Component{component(cdx.ComponentTypeLibrary, "std", strings.TrimPrefix(b.info.GoVersion, "go"), "")}
	for _, module := range b.info.Deps {
		parts = append(parts, component(cdx.ComponentTypeLibrary, module.Path, module.Version, module.Sum))
	}
	refs := make([]string, len(parts))
	for i, part := range parts {
		refs[i] = part.BOMRef
	}
	bom := cdx.NewBOM()
	bom.Metadata = &cdx.Metadata{Timestamp: r.date.Format("2006-01-02T15:04:05Z07:00"), Component: &program}
	bom.Components, bom.Dependencies = &parts, &[]cdx.Dependency{{Ref: program.BOMRef, Dependencies: &refs}}
	var out bytes.Buffer
	if err := cdx.NewBOMEncoder(&out, cdx.BOMFileFormatJSON).SetPretty(true).Encode(bom); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// writeProvenance describes how the files were built: an in-toto statement with SLSA's predicate.
// To check it, repeat the build and compare the bytes.
func (r *release) writeProvenance(builder string) error {
	statement := &attestation.Statement{Type: attestation.StatementTypeUri, PredicateType: "https://slsa.dev/provenance/v1"}
	for _, name := range r.written {
		sum, err := r.digest(name)
		if err != nil {
			return err
		}
		statement.Subject = append(statement.Subject, &attestation.ResourceDescriptor{Name: name, Digest: map[string]string{"sha256": sum}})
	}
	platforms := make([]any, len(r.binaries))
	dependencies := []*attestation.ResourceDescriptor{{Uri: "git+https://github.com/daypass/daypass", Digest: map[string]string{"gitCommit": r.commit}}}
	seen := map[string]bool{}
	for i, b := range r.binaries {
		platforms[i] = b.os + "/" + b.arch
		for _, module := range b.info.Deps {
			dependencies = append(dependencies, moduleOnce(module, seen)...)
		}
	}
	slices.SortFunc(dependencies[1:], func(a, b *attestation.ResourceDescriptor) int { return strings.Compare(a.Uri, b.Uri) })
	external, err := structpb.NewStruct(map[string]any{"source": "git+https://github.com/daypass/daypass", "version": r.version, "platforms": platforms})
	if err != nil {
		return err
	}
	internal, err := structpb.NewStruct(map[string]any{"go": r.binaries[0].info.GoVersion, "command": "make release"})
	if err != nil {
		return err
	}
	predicate := &provenance.Provenance{
		BuildDefinition: &provenance.BuildDefinition{BuildType: "https://github.com/daypass/daypass/blob/main/docs/releasing.md",
			ExternalParameters: external, InternalParameters: internal, ResolvedDependencies: dependencies},
		RunDetails: &provenance.RunDetails{Builder: &provenance.Builder{Id: builder}},
	}
	encoded, err := protojson.Marshal(predicate)
	if err != nil {
		return err
	}
	statement.Predicate = &structpb.Struct{}
	if err := protojson.Unmarshal(encoded, statement.Predicate); err != nil {
		return err
	}
	if encoded, err = protojson.Marshal(statement); err != nil {
		return err
	}
	// protojson varies its spaces on purpose, so format its output again.
	var tidy any
	if err := json.Unmarshal(encoded, &tidy); err != nil {
		return err
	}
	text, err := json.MarshalIndent(tidy, "", "  ")
	if err != nil {
		return err
	}
	return r.write(fmt.Sprintf("daypass_%s.intoto.json", r.number()), append(text, '\n'))
}

func moduleOnce(module *debug.Module, seen map[string]bool) []*attestation.ResourceDescriptor {
	uri := "pkg:golang/" + module.Path + "@" + module.Version
	if seen[uri] {
		return nil
	}
	seen[uri] = true
	return []*attestation.ResourceDescriptor{{Uri: uri, Digest: map[string]string{"goModuleH1": strings.TrimPrefix(module.Sum, "h1:")}}}
}

// writeChecksums writes SHA256SUMS in the format of "sha256sum --check".
func (r *release) writeChecksums() error {
	names := slices.Clone(r.written)
	slices.Sort(names)
	var out bytes.Buffer
	for _, name := range names {
		sum, err := r.digest(name)
		if err != nil {
			return err
		}
		fmt.Fprintf(&out, "%s  %s\n", sum, name)
	}
	return r.write("SHA256SUMS", out.Bytes())
}

func (r *release) digest(name string) (string, error) {
	data, err := os.ReadFile(filepath.Join(r.out, name))
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:]), err
}

// The signature is checked with signer and namespace: docs/releasing.md.
const signer, namespace = "release@daypass", "file"

// sign signs the checksums, and thereby all other files. It refuses a key that is not listed,
// because everyone would have to refuse its signature.
func (r *release) sign(key, signers string) error {
	sums := filepath.Join(r.out, "SHA256SUMS")
	if _, err := command(r.out, nil, "ssh-keygen", "-q", "-Y", "sign", "-n", namespace, "-f", key, sums); err != nil {
		return err
	}
	data, err := os.ReadFile(sums)
	if err != nil {
		return err
	}
	if _, err := commandWith(data, r.out, nil, "ssh-keygen", "-Y", "verify", "-f", signers, "-I", signer, "-n", namespace, "-s", sums+".sig"); err != nil {
		return errors.Join(fmt.Errorf("%s: is not one of the keys in %s: add its public half there first (docs/releasing.md): %w", key, signers, err), os.Remove(sums+".sig"))
	}
	r.say("signed: SHA256SUMS.sig")
	return nil
}
