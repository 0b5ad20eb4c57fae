package machine

import (
	"fmt"
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
