package wire

import (
	"context"
	"fmt"
	"testing"
)

func BenchmarkCall(b *testing.B) {
	for _, size := range []int{128, 4 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("one at a time, %d bytes", size), func(b *testing.B) {
			_, _, call := calling(b, same)
			req := make([]byte, size)
			b.SetBytes(int64(2 * size))
			for b.Loop() {
				if _, err := call(b.Context(), req); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("64 at a time, 128 bytes", func(b *testing.B) {
		_, _, call := calling(b, same)
		req := make([]byte, 128)
		b.SetParallelism(32) // times GOMAXPROCS
		b.RunParallel(func(p *testing.PB) {
			for p.Next() {
				if _, err := call(b.Context(), req); err != nil {
					b.Error(err)
				}
			}
		})
	})
}

func BenchmarkDial(b *testing.B) {
	_, from, to := two(b)
	to.Handle(proto, func(context.Context, *Conn) {})
	for b.Loop() {
		c, err := from.Dial(b.Context(), to.Addr().String(), proto)
		if err != nil {
			b.Fatal(err)
		}
		c.Close()
	}
}
