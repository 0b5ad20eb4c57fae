package peers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

func TestFetch(t *testing.T) {
	all := swarmOf(t, "a", "b")
	big := strings.Repeat("0123456789abcdef", 1<<16)
	all[1].AnswerFetches(func(_ context.Context, name string) (io.ReadCloser, int64, error) {
		switch name {
		case "big", "empty":
			content := map[string]string{"big": big}[name]
			return io.NopCloser(strings.NewReader(content + "and no more than was said")), int64(len(content)), nil
		case "cut":
			return io.NopCloser(strings.NewReader(big)), int64(len(big)) + 1, nil
		case "endless":
			return io.NopCloser(zeros{}), 1 << 50, nil
		}
		return nil, 0, fmt.Errorf("there is no %q:\nlook again", name)
	})
	for name, want := range map[string]struct {
		content string
		err     error
	}{"big": {big, nil}, "empty": {"", nil}, "cut": {big, io.ErrUnexpectedEOF}} {
		f, _, err := all[0].Fetch(t.Context(), "b", name)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got, err := io.ReadAll(f); string(got) != want.content || !errors.Is(err, want.err) || (err == nil) != (want.err == nil) {
			t.Errorf("%s: %d bytes, %v; want %d, %v", name, len(got), err, len(want.content), want.err)
		}
		if err := f.Close(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for what, want := range map[[2]string]string{
		{"b", "other"}:                         `node b: there is no "other": look again`,
		{"x", "big"}:                           "node x: it is not known here",
		{"b", strings.Repeat("long", maxLine)}: "node b",
	} {
		if _, _, err := all[0].Fetch(t.Context(), what[0], what[1]); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%.40s: %v, want %q", what, err, want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	f, _, err := all[0].Fetch(ctx, "b", "endless")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := io.CopyN(io.Discard, f, 1<<20); err != nil {
		t.Fatal(err)
	}
	cancel()
	if n, err := io.Copy(io.Discard, f); err == nil {
		t.Errorf("a file that nobody wants any more came to its end after %d bytes", n)
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }

func FuzzFileAnswer(f *testing.F) {
	for _, line := range []string{"", "+", "-", "+0", "-no", "+9223372036854775807", "+9223372036854775808", "+-1", "1"} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		size, err := fileAnswer(line)
		if size < 0 || err != nil && size != 0 || err == nil && !strings.HasPrefix(line, "+") {
			t.Errorf("%q: %d, %v", line, size, err)
		}
	})
}
