// Package internal_test holds the rules of the house as tests: who may import whom, which library
// lives where, and how large things may grow. A rule that is not a test is lost.
package internal_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/podman-swarm/podman-swarm/"

// floors orders the house. A package imports only from lower floors.
var floors = map[string]int{
	// words: pure, no peers, no host
	"expand": 0, "hlc": 0, "loop": 0, "simnet": 0, "single": 0, "swarm": 0, "tap": 0, "version": 0,
	// truth and the host's own devices
	"state": 1, "wire": 1, "gossip": 1, "pki": 1, "podman": 1, "netd": 1,
	// the API; what peers tell each other; and what a pod needs from its host, as pure or narrow pieces
	"apistore": 2, "apiserver": 2, "join": 2, "backup": 2, "podspec": 2, "volume": 2, "probe": 2, "stream": 2,
	// deciders and doers
	"control": 3, "schedule": 3, "agent": 3,
	// faces and assembly
	"node": 4, "cli": 4,
	// test only: whole clusters in one process
	"sim": 5,
}

// siblings are the imports within one floor that are allowed, each with its reason.
var siblings = map[string]string{
	"apiserver -> apistore": "the API server is assembled over the store's storage.Interface",
}

// floorThree limits floor 3: deciders see the API only, the doer `agent` also its host drivers.
var floorThree = map[string][]string{
	"control":  {"loop", "single", "tap", "version"},
	"schedule": {"loop", "tap", "version"},
	"agent":    {"loop", "single", "version", "podman", "netd", "podspec", "volume", "probe", "stream"},
}

// confined names the only packages that may import a library (prefix match on the import path).
var confined = []struct {
	library string
	in      []string
	reason  string
}{
	{"github.com/hashicorp/raft", []string{"state"}, "consensus is the store's secret"},
	{"github.com/hashicorp/memberlist", []string{"gossip"}, "liveness is gossip's business"},
	{"k8s.io/kubernetes", []string{"apiserver", "control", "schedule"}, "unstable imports stay where an upgrade is expected to hurt"},
	{"k8s.io/apiserver", []string{"apistore", "apiserver", "control", "schedule"}, "serving is the API server's"},
	{"k8s.io/kubectl", []string{"cli"}, "the command line is a client like any other"},
	{"github.com/spf13/cobra", []string{"cli"}, "commands are parsed at the edge"},
	{"github.com/vishvananda/netlink", []string{"netd"}, "the host's network is changed in one place"},
	{"k8s.io/cri-streaming", []string{"stream"}, "one package serves the node's streams"},
}

const (
	maxFile     = 400  // lines of a non-test file
	maxFunction = 60   // lines of a function
	maxPackage  = 2000 // non-test lines of a package
)

// larger are the exceptions to the sizes, each with its reason.
var larger = map[string]string{
	"node/run.go:Run": "the table of contents of a node reads in one piece",
}

type file struct {
	pkg   string // "state", or "agent/plan" for a nested package
	path  string
	lines int
	test  bool
	ast   *ast.File
	fset  *token.FileSet
}

func (f file) top() string { top, _, _ := strings.Cut(f.pkg, "/"); return top }

func load(t *testing.T) []file {
	t.Helper()
	var files []file
	err := filepath.WalkDir(".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(p, ".go") || filepath.Dir(p) == "." {
			return err
		}
		src, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		fset := token.NewFileSet()
		parsed, err := parser.ParseFile(fset, p, src, parser.ParseComments)
		if err != nil {
			return err
		}
		files = append(files, file{
			pkg: filepath.ToSlash(filepath.Dir(p)), path: p, lines: strings.Count(string(src), "\n"),
			test: strings.HasSuffix(p, "_test.go"), ast: parsed, fset: fset,
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func imports(f file) []string {
	var out []string
	for _, i := range f.ast.Imports {
		out = append(out, strings.Trim(i.Path.Value, `"`))
	}
	return out
}

func TestFloors(t *testing.T) {
	for _, f := range load(t) {
		floor, known := floors[f.top()]
		if !known {
			t.Errorf("%s: package %s has no floor: add it to floors", f.path, f.top())
			continue
		}
		for _, imp := range imports(f) {
			rest, ours := strings.CutPrefix(imp, module+"internal/")
			if !ours || f.test && floor >= 1 { // tests may use what they please below and beside them
				continue
			}
			other, _, _ := strings.Cut(rest, "/")
			if other == f.top() {
				continue
			}
			if allowed, limited := floorThree[f.top()]; limited && !slices.Contains(allowed, other) {
				t.Errorf("%s imports %s: %s sees only the API and %v", f.path, other, f.top(), allowed)
			}
			if floors[other] > floor {
				t.Errorf("%s imports %s, which is on a higher floor", f.path, other)
			}
			if floors[other] == floor && siblings[f.top()+" -> "+other] == "" {
				t.Errorf("%s imports its sibling %s", f.path, other)
			}
		}
	}
}

func TestConfinedLibraries(t *testing.T) {
	for _, f := range load(t) {
		for _, imp := range imports(f) {
			for _, c := range confined {
				if (imp == c.library || strings.HasPrefix(imp, c.library+"/")) && !slices.Contains(c.in, f.top()) && !f.test {
					t.Errorf("%s imports %s: only %v may (%s)", f.path, imp, c.in, c.reason)
				}
			}
		}
	}
}

// TestBinaries keeps the small binaries small: psctl is a client, the network helper has no Kubernetes.
func TestBinaries(t *testing.T) {
	for binary, allowed := range map[string][]string{
		"psctl":             {"cli"},
		"podman-swarm-netd": {"netd/helper"},
	} {
		matches, err := filepath.Glob(filepath.Join("..", "cmd", binary, "*.go"))
		if err != nil || len(matches) == 0 {
			t.Errorf("cmd/%s: no Go files (%v)", binary, err)
		}
		for _, p := range matches {
			parsed, err := parser.ParseFile(token.NewFileSet(), p, nil, parser.ImportsOnly)
			if err != nil {
				t.Fatal(err)
			}
			for _, i := range parsed.Imports {
				imp := strings.Trim(i.Path.Value, `"`)
				if rest, ours := strings.CutPrefix(imp, module+"internal/"); ours && !slices.Contains(allowed, rest) {
					t.Errorf("%s imports %s: %s may use only %v", p, imp, binary, allowed)
				}
			}
		}
	}
}

func TestEveryPackageIsDocumented(t *testing.T) {
	docs := map[string]int{}
	for _, f := range load(t) {
		if f.test {
			continue
		}
		docs[f.pkg] += 0
		if f.ast.Doc != nil {
			docs[f.pkg]++
			if base := path.Base(filepath.ToSlash(f.path)); base != "doc.go" && docs[f.pkg] > 1 {
				t.Errorf("%s: a second package comment; it belongs into doc.go", f.path)
			}
		}
	}
	for pkg, n := range docs {
		if n == 0 {
			t.Errorf("package %s has no package comment (doc.go)", pkg)
		}
	}
}

func TestSizes(t *testing.T) {
	packages, used := map[string]int{}, map[string]bool{}
	report := func(key string, have, limit int) {
		if have <= limit {
			return
		}
		if larger[key] != "" {
			used[key] = true
			return
		}
		t.Errorf("%s: %d lines, at most %d (split it by concept, or add it to `larger` with the reason)", key, have, limit)
	}
	for _, f := range load(t) {
		if f.test {
			continue
		}
		packages[f.pkg] += f.lines
		report(f.path, f.lines, maxFile)
		for _, d := range f.ast.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok {
				lines := f.fset.Position(fn.End()).Line - f.fset.Position(fn.Pos()).Line
				report(fmt.Sprintf("%s:%s", f.path, fn.Name.Name), lines, maxFunction)
			}
		}
	}
	for pkg, lines := range packages {
		report(pkg, lines, maxPackage)
	}
	for key := range larger {
		if !used[key] {
			t.Errorf("larger[%q] is no longer needed: remove it", key)
		}
	}
}
