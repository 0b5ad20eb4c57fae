package state

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// benchDir is on the disk of the working directory, not in memory.
func benchDir(b *testing.B) string {
	b.Helper()
	dir, err := os.MkdirTemp(".", "bench-") //nolint:usetesting // that one is in memory
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = os.RemoveAll(dir) })
	return filepath.Join(dir, "state")
}

func BenchmarkApply(b *testing.B) {
	for _, writers := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			s := open(b, Config{Dir: benchDir(b)})
			val := make([]byte, 2<<10)
			var n atomic.Int64
			var wg sync.WaitGroup
			b.ReportAllocs()
			b.ResetTimer()
			for w := range writers {
				wg.Go(func() {
					for i := n.Add(1); i <= int64(b.N); i = n.Add(1) {
						if _, err := s.Apply(b.Context(), Write{Key: fmt.Sprintf("/w/%d/%d", w, i%100), Value: val, Expect: Any}); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "writes/s")
		})
	}
}

// filled is a store in memory with so many keys of 1 KB.
func filled(b *testing.B, dir string, keys int) *Store {
	b.Helper()
	s := open(b, Config{Dir: dir})
	var wg sync.WaitGroup
	for w := range 64 {
		wg.Go(func() {
			for i := w; i < keys; i += 64 {
				put(b, s, fmt.Sprintf("/registry/pods/ns-%d/pod-%d", i%20, i), strings.Repeat("x", 1024))
			}
		})
	}
	wg.Wait()
	return s
}

func BenchmarkViewGet(b *testing.B) {
	s := filled(b, "", 10_000)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		i++
		if _, ok := s.View().Get(fmt.Sprintf("/registry/pods/ns-%d/pod-%d", i%20, i%10_000)); !ok {
			b.Fatal("missing")
		}
	}
}

// A view after every write is the dearest order: each write copies a path of the tree.
func BenchmarkApplyThenView(b *testing.B) {
	s := filled(b, "", 10_000)
	b.ReportAllocs()
	for b.Loop() {
		put(b, s, "/registry/pods/ns-3/pod-3", "new")
		s.View()
	}
}

// One write that 100 watches see, beside 100 that it does not concern.
func BenchmarkWatchFanout(b *testing.B) {
	s := open(b, Config{})
	ctx, cancel := context.WithCancel(b.Context())
	var wg sync.WaitGroup
	var seen atomic.Int64
	for i := range 200 {
		prefix := "/hot/"
		if i%2 == 1 {
			prefix = fmt.Sprintf("/cold/%d/", i)
		}
		w, err := s.WatchPrefix(prefix, s.Revision())
		if err != nil {
			b.Fatal(err)
		}
		wg.Go(func() {
			defer w.Close()
			buf := make([]Event, 0, 16)
			for {
				evs, _, err := w.Next(ctx, buf)
				if err != nil {
					return
				}
				seen.Add(int64(len(evs)))
			}
		})
	}
	b.ReportAllocs()
	for b.Loop() {
		put(b, s, "/hot/x", "v")
	}
	cancel()
	wg.Wait()
	b.ReportMetric(float64(seen.Load())/float64(b.N), "events/write")
}

// Opening a store of 10,000 keys: from its log alone, and from a snapshot.
func BenchmarkOpen10k(b *testing.B) {
	for _, how := range []string{"log", "snapshot"} {
		b.Run(how, func(b *testing.B) {
			dir := benchDir(b)
			s := filled(b, dir, 10_000)
			if how == "snapshot" {
				if err := s.instance().Raft.Snapshot().Error(); err != nil {
					b.Fatal(err)
				}
			}
			if err := s.Close(); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				s, err := tryOpen(b, Config{Dir: dir})
				if err != nil {
					b.Fatal(err)
				}
				if n := s.View().Count("", ""); n != 10_000 {
					b.Fatalf("%d keys", n)
				}
				b.StopTimer()
				if err := s.Close(); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
	}
}
