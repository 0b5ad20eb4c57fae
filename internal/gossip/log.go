package gossip

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// bridge is the writer below memberlist's logger. Most of what memberlist calls an error is a peer
// that does not answer, which is its daily work: that is Debug here. What an operator should know,
// this package says itself, or it is in loud.
type bridge struct {
	log  *slog.Logger
	mu   sync.Mutex
	said limiter
}

func newBridge(log *slog.Logger) *bridge { return &bridge{log: log} }

// loud are the beginnings of the lines that mean: somebody should look.
func loud() []string {
	return []string{
		"Decrypt packet failed",
		"discarding packet with unacceptable label",
		"discarding stream with unacceptable label",
		"Was able to connect to", // streams work, datagrams do not: a firewall
		"handler queue full",
		"Too many pending push/pull requests",
		"Remote node state size is",
	}
}

// Write takes one line, as a log.Logger does it.
func (b *bridge) Write(line []byte) (int, error) {
	ctx := context.Background() //nolint:forbidigo // a log.Logger has no contexts
	says := text(line)
	level := slog.LevelDebug
	for _, start := range loud() {
		if strings.HasPrefix(says, start) && b.allow(start) {
			level = slog.LevelWarn
		}
	}
	if b.log.Enabled(ctx, level) {
		b.log.Log(ctx, level, "memberlist", "says", says)
	}
	return len(line), nil
}

func (b *bridge) allow(start string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.said.allow(start, time.Now())
}

// text is a line without its level and its "memberlist: ".
func text(line []byte) string {
	line = bytes.TrimSpace(line)
	if bytes.HasPrefix(line, []byte("[")) {
		if _, rest, ok := bytes.Cut(line, []byte("] ")); ok {
			line = rest
		}
	}
	return string(bytes.TrimPrefix(line, []byte("memberlist: ")))
}

const (
	sayEvery = 10 * time.Second
	sayMax   = 256 // topics remembered
)

// limiter allows a topic once in sayEvery: what strangers send must not fill the log.
type limiter map[string]time.Time

func (l *limiter) allow(topic string, now time.Time) bool {
	if last, ok := (*l)[topic]; ok && now.Sub(last) < sayEvery {
		return false
	}
	if *l == nil || len(*l) >= sayMax {
		*l = limiter{}
	}
	(*l)[topic] = now
	return true
}
