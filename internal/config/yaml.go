package config

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"

	"go.yaml.in/yaml/v4"

	"github.com/daypass/daypass/internal/filemode"
)

// yamlFile is a configuration file that is being read. Reading continues after a fault, so
// that one run reports all faults.
type yamlFile struct {
	path     string // as given, for messages
	dir      string // what relative paths in the file start from
	getenv   func(string) (string, bool)
	faults   []fault
	warnings []warning
	lines    map[string]int     // of every key and list item in the file
	files    map[string]outside // the files it names, by absolute path
	asked    map[*key]bool      // rows of the table that the program has read
	inline   string             // where a secret is written in the file itself; empty: nowhere

	anySecret bool // someSecret stands for a secret whose file cannot be read
}

// fault is something wrong with the file.
type fault struct {
	line   int
	policy bool // it is a fault of a policy document
	err    error
}

// warning is about something in the file that is valid but probably not intended.
type warning struct {
	line int
	text string
}

func newYAMLFile(path string, getenv func(string) (string, bool)) (*yamlFile, error) {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	return &yamlFile{path: path, dir: filepath.Dir(absolute), getenv: getenv,
		lines: map[string]int{}, files: map[string]outside{}, asked: map[*key]bool{}}, nil
}

func (f *yamlFile) errorf(node *yaml.Node, key, format string, args ...any) {
	f.faults = append(f.faults, fault{line: node.Line, err: fmt.Errorf("%s:%d: %s: %s", f.path, node.Line, key, fmt.Sprintf(format, args...))})
}

// sorted returns all faults in the order of their lines.
func (f *yamlFile) sorted() []fault {
	slices.SortStableFunc(f.faults, func(a, b fault) int { return a.line - b.line })
	return f.faults
}

func (f *yamlFile) err() error {
	errs := make([]error, len(f.faults))
	for i, fault := range f.sorted() {
		errs[i] = fault.err
	}
	return errors.Join(errs...)
}

// resolve makes a path in the file absolute. Relative paths start at the file's own
// directory, so that a configuration means the same wherever the server is started.
func (f *yamlFile) resolve(path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(f.dir, path)
}

// read reads a file that the configuration names. It reads each file once, so that all keys
// with the same path see the same content.
func (f *yamlFile) read(path string) ([]byte, error) {
	known, ok := f.files[path]
	if !ok {
		known = readFile(path)
		f.files[path] = known
	}
	return known.data, known.err
}

// judge warns if other accounts can access a file that should be private.
func (f *yamlFile) judge(node *yaml.Node, key, path string, kind filemode.Kind) {
	known, ok := f.files[path]
	if !ok || known.judged || !known.regular() || known.file.info == nil {
		return
	}
	if fault := filemode.Check(path, known.file.info, kind); fault != nil {
		known.judged = true
		f.files[path] = known
		f.warn(node, key, "%v", fault)
	}
}

func (f *yamlFile) warn(node *yaml.Node, key, format string, args ...any) {
	f.warnings = append(f.warnings, warning{node.Line, fmt.Sprintf("%s:%d: %s: %s", f.path, node.Line, key, fmt.Sprintf(format, args...))})
}

// sum returns a hash of a file's content.
func (f *yamlFile) sum(path string) [sha256.Size]byte {
	_, _ = f.read(path)
	return f.files[path].file.Sum
}

// document parses a text, which has to be one mapping with valid aliases.
func (f *yamlFile) document(data []byte) (*yaml.Node, error) {
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var document, another yaml.Node
	if err := decoder.Decode(&document); err != nil && !errors.Is(err, io.EOF) {
		return nil, syntaxError(f.path, data, err)
	}
	if len(document.Content) == 0 {
		return nil, fmt.Errorf("%s:1: the file is empty", f.path)
	}
	switch err := decoder.Decode(&another); {
	case err == nil:
		return nil, fmt.Errorf("%s:%d: a second YAML document begins here; the configuration has to be one", f.path, another.Line)
	case !errors.Is(err, io.EOF):
		return nil, syntaxError(f.path, data, err)
	}
	root := document.Content[0]
	if root.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("%s:%d: the file is %s, want a mapping of keys to values", f.path, root.Line, kindOf(root))
	}
	if !f.checkAliases(root) {
		return nil, f.err()
	}
	return root, nil
}

func dealias(node *yaml.Node) *yaml.Node {
	if node.Kind == yaml.AliasNode {
		return node.Alias
	}
	return node
}

func isNull(node *yaml.Node) bool {
	return node.Kind == yaml.ScalarNode && node.Tag == "!!null"
}

func kindOf(node *yaml.Node) string {
	switch {
	case node.Kind == yaml.MappingNode:
		return "a mapping"
	case node.Kind == yaml.SequenceNode:
		return "a list"
	case isNull(node) || node.Kind == yaml.ScalarNode && node.Value == "":
		return "empty"
	case node.Kind == yaml.ScalarNode:
		return "a single value"
	default:
		return "something else"
	}
}
