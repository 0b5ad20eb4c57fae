package cluster

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// handbook is the document that TestOperations follows.
const handbook = "../../docs/operations.md"

// block is commands that docs/operations.md tells a person to run.
type block struct {
	line    int    // of its header
	heading string // below which they stand
	host    string // n1, n2, n3, or "any machine"
	when    string // what else the header says, "" mostly
	script  string
}

func (b block) String() string { return fmt.Sprintf("docs/operations.md:%d (%s)", b.line, b.heading) }

var (
	fence     = regexp.MustCompile("^ *```(.*)$")
	blockHead = regexp.MustCompile(`^# on (n[123]|any machine)(?:, (.+))?$`)
)

// blocks are the commands of a document, in its order: every fenced block of language sh, whose
// first line must say where it is run.
func blocks(doc string) ([]block, error) {
	var (
		out     []block
		heading string
		lang    string
		inside  bool
		body    []string
		indent  int
		begin   int
	)
	for i, line := range strings.Split(doc, "\n") {
		m := fence.FindStringSubmatch(line)
		switch {
		case m != nil && !inside:
			inside, lang, body, begin = true, m[1], nil, i+2
			indent = len(line) - len(strings.TrimLeft(line, " "))
		case m != nil && lang == "sh":
			inside = false
			b, err := parseBlock(body)
			if err != nil {
				return nil, fmt.Errorf("line %d: %w", begin, err)
			}
			b.line, b.heading = begin, heading
			out = append(out, b)
		case m != nil:
			inside = false
		case inside:
			body = append(body, line[min(indent, len(line)):])
		case strings.HasPrefix(line, "#"):
			heading = strings.TrimLeft(line, "# ")
		}
	}
	if inside {
		return nil, fmt.Errorf("the block of line %d does not end", begin)
	}
	return out, nil
}

func parseBlock(lines []string) (block, error) {
	if len(lines) < 2 {
		return block{}, fmt.Errorf("a block of %d lines says too little", len(lines))
	}
	m := blockHead.FindStringSubmatch(lines[0])
	if m == nil {
		return block{}, fmt.Errorf("%q does not say where to run this: `# on n1`", lines[0])
	}
	return block{host: m[1], when: m[2], script: strings.Join(lines[1:], "\n") + "\n"}, nil
}

// mention is a command of ours that a document names, in a block or in a sentence.
type mention struct {
	line    int
	program string
	words   []string // what follows the program's name, up to the first flag, value or variable
	flags   []string
}

func (m mention) String() string {
	return fmt.Sprintf("docs/operations.md:%d: %s %s %s", m.line, m.program, strings.Join(m.words, " "), strings.Join(m.flags, " "))
}

var (
	named    = regexp.MustCompile(`(?:^|[\s(>"])(?:/usr/local/bin/)?(podman-swarm|psctl) ([a-z][^|)]*)`)
	verb     = regexp.MustCompile(`^[a-z][a-z-]*$`)
	longFlag = regexp.MustCompile(`(?:^|\s)(--[a-z][a-z-]*)`)
	code     = regexp.MustCompile("`([^`]+)`")
	// Blocks of language text hold outputs, in which only lines like these are typed by somebody.
	prompt = regexp.MustCompile(`^ *# ((?:podman-swarm|psctl) .*)$`)
)

// mentions are the commands of ours that a document names.
func mentions(doc string) []mention {
	var out []mention
	lang, inside := "", false
	for i, line := range strings.Split(doc, "\n") {
		if m := fence.FindStringSubmatch(line); m != nil {
			inside, lang = !inside, m[1]
			continue
		}
		var texts []string
		switch {
		case inside && lang == "text":
			if m := prompt.FindStringSubmatch(line); m != nil {
				texts = []string{m[1]}
			}
		case inside:
			texts = strings.Split(line, "$(") // what is substituted is a command, too
		default:
			for _, m := range code.FindAllStringSubmatch(line, -1) {
				texts = append(texts, m[1])
			}
		}
		for _, text := range texts {
			for _, m := range named.FindAllStringSubmatch(text, -1) {
				out = append(out, newMention(i+1, m[1], m[2]))
			}
		}
	}
	return out
}

func newMention(line int, program, args string) mention {
	m := mention{line: line, program: program}
	for _, word := range strings.Fields(args) {
		if !verb.MatchString(word) {
			break
		}
		m.words = append(m.words, word)
	}
	for _, f := range longFlag.FindAllStringSubmatch(args, -1) {
		m.flags = append(m.flags, f[1])
	}
	return m
}

func readHandbook(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(handbook)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestHandbook: every block of docs/operations.md says where it is run, in words that TestOperations knows.
func TestHandbook(t *testing.T) {
	doc := readHandbook(t)
	all, err := blocks(doc)
	if err != nil {
		t.Fatal(err)
	}
	if want := strings.Count(doc, "```sh\n"); len(all) != want {
		t.Errorf("%d blocks were read, the document has %d", len(all), want)
	}
	for _, b := range all {
		if !slices.Contains([]string{"", withoutSystemd, withSystemd, whenEnded}, b.when) {
			t.Errorf("%s: %q is a condition that TestOperations does not know", b, b.when)
		}
	}
	if n := len(mentions(doc)); n < len(all) {
		t.Errorf("%d commands are named in %d blocks: they are not recognized", n, len(all))
	}
}

// The conditions that a block's header may name.
const (
	withoutSystemd = "without systemd"
	withSystemd    = "with systemd"
	whenEnded      = "when its agent has ended"
)

func TestBlocks(t *testing.T) {
	const doc = "# Title\n\n## First\n\n```sh\n# on n1\na\nb $N1\n```\n\n```text\n# on n2\n```\n\n" +
		"### Second\n\n1. x\n\n   ```sh\n   # on n2, when its agent has ended\n   c \\\n     d\n   ```\n"
	got, err := blocks(doc)
	if err != nil {
		t.Fatal(err)
	}
	want := []block{
		{6, "First", "n1", "", "a\nb $N1\n"},
		{20, "Second", "n2", whenEnded, "c \\\n  d\n"},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	for _, bad := range []string{"```sh\na\nb\n```\n", "```sh\n# on n1\n```\n", "```sh\n# on n1\na\n", "```sh\n# on n4\na\n```\n"} {
		if got, err := blocks(bad); err == nil {
			t.Errorf("%q: got %+v, want an error", bad, got)
		}
	}
}

func TestMentions(t *testing.T) {
	const doc = "Say `psctl node rm n2`, not podman-swarm at all; `podman-swarm agent --help` lists.\n" +
		"```sh\n# on n1\npsctl swarm backup download \"$(psctl swarm backup list --no-headers | awk 1)\" -f x\n```\n" +
		"```text\npodman-swarm: this node\n# psctl swarm conflicts undo 01a --yes\n```\n"
	var got []string
	for _, m := range mentions(doc) {
		got = append(got, strings.TrimSpace(strings.Join(append(append([]string{m.program}, m.words...), m.flags...), " ")))
	}
	want := []string{
		"psctl node rm", "podman-swarm agent --help", "psctl swarm backup download", "psctl swarm backup list --no-headers",
		"psctl swarm conflicts undo --yes",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
}
