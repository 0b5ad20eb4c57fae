package machine

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// How long it takes to go back so many events.
func BenchmarkViewAt(b *testing.B) {
	for _, back := range []uint64{10, 1000, 9000} {
		b.Run(fmt.Sprintf("back=%d", back), func(b *testing.B) {
			f := newMachine(Retention{Age: time.Hour, Events: 10_000})
			for i := range uint64(20_000) {
				c := Command{Key: fmt.Sprintf("/registry/pods/ns-%d/pod-%d", i%20, i), Expect: Any, Value: make([]byte, 100)}
				f.Apply(&raft.Log{Index: i + 1, Data: c.Encode()})
			}
			b.ReportAllocs()
			for b.Loop() {
				f.views = viewCache{}
				if _, err := f.ViewAt(f.Revision() - back); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// What one entry of the log costs once it is committed: a key is written anew; it comes and goes.
func BenchmarkApply(b *testing.B) {
	const keys = 50_000
	key := make([]string, 2*keys)
	for i := range key {
		key[i] = fmt.Sprintf("/registry/pods/ns-%d/pod-%d", i%20, i)
	}
	run := func(name string, entry func(i int) *Command) {
		b.Run(name, func(b *testing.B) {
			f := newMachine(Retention{Age: time.Hour, Events: 1000})
			index := uint64(0)
			apply := func(c *Command) {
				index++
				f.Apply(&raft.Log{Index: index, Data: c.Encode()})
			}
			for i := range keys {
				apply(&Command{Key: key[i], Expect: Any, Value: make([]byte, 100)})
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				apply(entry(i))
				i++
			}
		})
	}
	val := make([]byte, 1000)
	run("update", func(i int) *Command { return &Command{Key: key[i*7%keys], Expect: Any, Value: val} })
	run("create-delete", func(i int) *Command {
		return &Command{Key: key[keys+i/2%keys], Expect: Any, Delete: i%2 == 1, Value: val[:1000*(1-i%2)]}
	})
	run("expiring", func(i int) *Command {
		return &Command{Key: key[keys+i/2%keys], Expect: Any, Delete: i%2 == 1, Value: val[:1000*(1-i%2)], Expires: int64(1-i%2) * 5}
	})
}

// What a log entry costs that brings 512 KB of another lineage's changes, each 1 KB: all news, and
// all of them conflicts.
func BenchmarkMerge(b *testing.B) {
	for _, conflicts := range []bool{false, true} {
		b.Run(fmt.Sprintf("conflicts=%v", conflicts), func(b *testing.B) {
			to := machineOf("a")
			from := forked(b, to, "b")
			for i := range 500 {
				key := fmt.Sprintf("/registry/pods/ns-%d/pod-%d", i%20, i)
				write(b, from, 1, key, strings.Repeat("x", 1024))
				if conflicts {
					write(b, to, 0, key, "other")
				}
			}
			entries := handOver(b, from, to, from.Point(), 1<<20)
			if len(entries) != 1 {
				b.Fatalf("%d entries", len(entries))
			}
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				fresh := copyOf(b, to)
				b.StartTimer()
				if out := do(b, fresh, entries[0]); out.Err != nil || (out.Merged.Conflicts == 500) != conflicts {
					b.Fatalf("%+v, %v", out.Merged, out.Err)
				}
			}
		})
	}
}
