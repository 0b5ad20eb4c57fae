package netd

import (
	"testing"
)

func FuzzControlMessages(f *testing.F) {
	f.Add([]byte{20, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 9, 0, 0, 0})
	f.Fuzz(func(_ *testing.T, b []byte) { answerFrom(b) })
}

func TestFamily(t *testing.T) {
	for in, want := range map[[2]string]string{
		{"tcp", "10.0.0.1:80"}: "tcp4", {"udp", "[::1]:53"}: "udp6", {"tcp4", "10.0.0.1:80"}: "tcp4",
		{"tcp", "[::ffff:10.0.0.1]:80"}: "tcp4",
		{"tcp", "localhost:80"}:         "", {"tcp6", "10.0.0.1:80"}: "", {"unix", "10.0.0.1:80"}: "", {"tcp", "10.0.0.1"}: "",
	} {
		if got, err := family(in[0], in[1]); got != want || (err == nil) != (want != "") {
			t.Errorf("family(%q) = %q, %v", in, got, err)
		}
	}
}

func TestLastLines(t *testing.T) {
	if got := lastLines([]byte("a\nb\r\n\nc\nd\n")); got != "b; c; d" {
		t.Errorf("lastLines: %q", got)
	}
}
