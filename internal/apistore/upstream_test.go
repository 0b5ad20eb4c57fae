package apistore

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// upstreamTests is how many conformance tests k8s.io/apiserver v0.37 exports: 54 are called
// RunTestX, six more RunX.
const upstreamTests = 60

// Every test function that upstream exports is called in conformance_test.go or is an exception
// with a reason, so that an upgrade of k8s.io/apiserver cannot bring one that nobody runs.
func TestEveryUpstreamTestIsRun(t *testing.T) {
	const pkg = "k8s.io/apiserver/pkg/storage/testing"
	out, err := exec.CommandContext(t.Context(), "go", "list", "-f", "{{.Dir}}", pkg).Output()
	if err != nil {
		t.Fatalf("go list %s: %v", pkg, err)
	}
	files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(out)), "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no sources of %s: %v", pkg, err)
	}
	exported := map[string]bool{}
	for _, file := range files {
		if !strings.HasSuffix(file, "_test.go") {
			exportedTests(parse(t, file), exported)
		}
	}
	called := map[string]bool{}
	ast.Inspect(parse(t, "conformance_test.go"), func(n ast.Node) bool {
		if sel, ok := n.(*ast.SelectorExpr); ok {
			if x, ok := sel.X.(*ast.Ident); ok && x.Name == "storagetesting" {
				called[sel.Sel.Name] = true
			}
		}
		return true
	})
	if len(exported) != upstreamTests {
		t.Errorf("upstream exports %d tests, not %d: %v", len(exported), upstreamTests, slices.Sorted(maps.Keys(exported)))
	}
	for name := range exported {
		switch reason, excepted := exceptions[name]; {
		case excepted && called[name]:
			t.Errorf("%s is run and also excepted", name)
		case excepted && reason == "":
			t.Errorf("%s is excepted without a reason", name)
		case !excepted && !called[name]:
			t.Errorf("%s is not run", name)
		}
	}
	for name := range exceptions {
		if !exported[name] {
			t.Errorf("exception %s is no upstream test", name)
		}
	}
}

func parse(t *testing.T, file string) *ast.File {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// exportedTests adds the names of a file's Run* functions that take a test, not a benchmark.
func exportedTests(f *ast.File, names map[string]bool) {
	for _, d := range f.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok || fn.Recv != nil || !strings.HasPrefix(fn.Name.Name, "Run") {
			continue
		}
		for _, param := range fn.Type.Params.List {
			typ := param.Type
			if star, ok := typ.(*ast.StarExpr); ok {
				typ = star.X
			}
			if sel, ok := typ.(*ast.SelectorExpr); ok && (sel.Sel.Name == "T" || sel.Sel.Name == "TB") {
				names[fn.Name.Name] = true
			}
		}
	}
}
