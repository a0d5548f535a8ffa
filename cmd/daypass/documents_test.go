package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
)

// block is a fenced block of a document.
type block struct {
	file string // from the root of the repository
	line int
	lang string
	text string
}

// id identifies a block by its file and its first line, which change less often than its number.
func (b block) id() string {
	first, _, _ := strings.Cut(strings.TrimSpace(b.text), "\n")
	return b.file + ": " + first
}

var fence = regexp.MustCompile("(?ms)^( *)```(\\w*)\n(.*?)^ *```$")

// documents are the files that contain commands for people to type.
func documents(t *testing.T) []string {
	t.Helper()
	files := []string{"README.md", "CONTRIBUTING.md", "SECURITY.md"}
	for _, pattern := range []string{"docs/*.md", "docs/decisions/*.md", "deploy/*/*.md"} {
		found, err := filepath.Glob("../../" + pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range found {
			files = append(files, strings.TrimPrefix(filepath.ToSlash(path), "../../"))
		}
	}
	return files
}

func blocks(t *testing.T) []block {
	t.Helper()
	var all []block
	for _, file := range documents(t) {
		data, err := os.ReadFile("../../" + file)
		if err != nil {
			t.Fatal(err)
		}
		for _, at := range fence.FindAllSubmatchIndex(data, -1) {
			indent := string(data[at[2]:at[3]])
			text := strings.ReplaceAll("\n"+string(data[at[6]:at[7]]), "\n"+indent, "\n")[1:]
			all = append(all, block{file, 1 + strings.Count(string(data[:at[0]]), "\n"), string(data[at[4]:at[5]]), text})
		}
	}
	if len(all) < 40 {
		t.Fatalf("only %d blocks are found in the documents", len(all))
	}
	return all
}

// blockOf returns the only block of a file that begins with a text.
func blockOf(t *testing.T, file, begins string) block {
	t.Helper()
	for _, b := range blocks(t) {
		if b.file == file && strings.HasPrefix(strings.TrimSpace(b.text), begins) {
			return b
		}
	}
	t.Fatalf("%s has no block that begins with %q", file, begins)
	return block{}
}

// TestBlocksHaveALanguage: every code block has a language, which shows whether it contains
// commands. sh blocks are run; console blocks are run and their output is compared. No other
// name for a shell is allowed.
func TestBlocksHaveALanguage(t *testing.T) {
	for _, b := range blocks(t) {
		if b.lang == "" || b.lang == "bash" || b.lang == "shell" {
			t.Errorf("%s:%d: the block is in %q; commands are sh, commands with their output console, other text is text", b.file, b.line, b.lang)
		}
	}
}

// TestPoliciesOfDocuments: AWS would accept every statement in a document, and lint has no
// warnings about the introductory examples.
func TestPoliciesOfDocuments(t *testing.T) {
	clean := []string{"docs/policy.md: groups:", "docs/policy.md: - Sid: OwnSessions", "docs/operations.md: Version: \"2012-10-17\"", "docs/identities.md: iam:"}
	policies := 0
	for _, b := range blocks(t) {
		if b.lang != "yaml" && b.lang != "json" {
			continue
		}
		var root yaml.Node
		if err := yaml.Unmarshal([]byte(b.text), &root); err != nil {
			t.Errorf("%s:%d: %v", b.file, b.line, err)
			continue
		}
		for _, document := range policyDocuments(t, &root) {
			policies++
			path := filepath.Join(t.TempDir(), "policy.yaml")
			if err := os.WriteFile(path, document, 0o600); err != nil {
				t.Fatal(err)
			}
			stdout, stderr, code := runDaypass(t, "policy", "lint", path)
			if code != 0 || strings.Contains(stdout, "warning:") && slices.Contains(clean, b.id()) {
				t.Errorf("%s:%d: lint says %s%s of\n%s", b.file, b.line, stdout, stderr, document)
			}
		}
	}
	if policies < 10 {
		t.Errorf("only %d policies are found in the documents", policies)
	}
}

// policyDocuments returns the policies in a piece of YAML: mappings with a Statement, and bare
// lists of statements.
func policyDocuments(t *testing.T, node *yaml.Node) (documents [][]byte) {
	t.Helper()
	var whole struct {
		Statement yaml.Node `yaml:"Statement"`
	}
	if node.Kind == yaml.MappingNode && node.Decode(&whole) == nil && whole.Statement.Kind != 0 {
		text, err := yaml.Marshal(node)
		if err != nil {
			t.Fatal(err)
		}
		return append(documents, text)
	}
	if node.Kind == yaml.DocumentNode {
		return policyDocuments(t, node.Content[0])
	}
	type effect struct {
		Effect string `yaml:"Effect"`
	}
	var statements []effect
	var one effect
	if node.Decode(&statements) == nil && len(statements) > 0 && statements[0].Effect != "" || node.Kind == yaml.MappingNode && node.Decode(&one) == nil && one.Effect != "" {
		text, err := yaml.Marshal(map[string]any{"Version": "2012-10-17", "Statement": node})
		if err != nil {
			t.Fatal(err)
		}
		return append(documents, text)
	}
	for _, child := range node.Content {
		documents = append(documents, policyDocuments(t, child)...)
	}
	return documents
}

var inlineCommand = regexp.MustCompile("`daypass ([^`]+)`")

// TestInlineCommands: the commands and flags that sentences mention exist.
func TestInlineCommands(t *testing.T) {
	found := 0
	for _, file := range documents(t) {
		data, err := os.ReadFile("../../" + file)
		if err != nil {
			t.Fatal(err)
		}
		if file == "CHANGELOG.md" {
			continue
		}
		text := fence.ReplaceAllString(string(data), "")
		for _, m := range inlineCommand.FindAllStringSubmatch(text, -1) {
			found++
			words := strings.Fields(m[1])
			root := newRootCommand(environment{})
			cmd, rest, err := root.Find(spread(root, words))
			if err != nil || cmd == root && !strings.HasPrefix(words[0], "-") {
				t.Errorf("%s: `daypass %s`: there is no such command", file, m[1])
				continue
			}
			if cmd.DisableFlagParsing {
				continue
			}
			for _, word := range rest {
				name, isFlag := strings.CutPrefix(word, "--")
				name, _, _ = strings.Cut(name, "=")
				if isFlag && name != "" && name != "help" && cmd.Flags().Lookup(name) == nil {
					t.Errorf("%s: `daypass %s`: %s has no flag --%s", file, m[1], cmd.CommandPath(), name)
				}
			}
		}
	}
	if found < 30 {
		t.Errorf("only %d commands are found in sentences", found)
	}
}

// TestEveryDocumentIsFound: links lead from the README, or from docs/README.md, which it names, to
// every document, and every link to a file is valid.
func TestEveryDocumentIsFound(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	index, err := os.ReadFile("../../docs/README.md")
	if err != nil {
		t.Fatal(err)
	}
	link := regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`)
	for _, file := range documents(t) {
		page, inDocs := strings.CutPrefix(file, "docs/")
		linked := strings.Contains(string(readme), "("+file+")") || inDocs && strings.Contains(string(index), "("+page+")")
		if !linked && file != "README.md" && !strings.HasPrefix(file, "docs/decisions/") && !strings.HasPrefix(file, "deploy/") {
			t.Errorf("neither README.md nor docs/README.md leads to %s", file)
		}
		data, err := os.ReadFile("../../" + file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(fence.ReplaceAllString(string(data), ""), -1) {
			if _, err := os.Stat(filepath.Join("../..", filepath.Dir(file), m[1])); err != nil {
				t.Errorf("%s leads to %s: %v", file, m[1], err)
			}
		}
	}
}
