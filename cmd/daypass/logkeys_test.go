package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
)

// TestLogKeys: every log line uses the key "err" for an error.
func TestLogKeys(t *testing.T) {
	logs := map[string]bool{"Error": true, "Warn": true, "Info": true, "Debug": true, "Log": true, "With": true, "append": true,
		"ErrorContext": true, "WarnContext": true, "InfoContext": true, "DebugContext": true}
	calls := 0
	for _, dir := range []string{"../../cmd", "../../internal"} {
		err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			set := token.NewFileSet()
			file, err := parser.ParseFile(set, path, nil, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			ast.Inspect(file, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok {
					return true
				}
				name := ""
				switch fun := call.Fun.(type) {
				case *ast.SelectorExpr:
					name = fun.Sel.Name
				case *ast.Ident: // append(attributes, "key", value)
					name = fun.Name
				}
				if !logs[name] || len(call.Args) < 3 {
					return true
				}
				calls++
				for _, arg := range call.Args {
					if key, ok := arg.(*ast.BasicLit); ok && (key.Value == `"error"` || key.Value == `"e"` || key.Value == `"cause"`) {
						t.Errorf("%s: the key of an error is err, not %s", set.Position(key.Pos()), key.Value)
					}
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if calls < 30 {
		t.Errorf("%d calls of the log were found, want more than 30", calls)
	}
}
