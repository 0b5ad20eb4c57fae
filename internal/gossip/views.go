package gossip

import (
	"context"
	"encoding/binary"
	"hash/fnv"
	"time"

	"github.com/hashicorp/memberlist"
)

// views compares what members believe. A rumour may miss somebody, and nobody would notice until
// the next exchange of whole states, 10 to 20 s later. So every answer to a probe carries a digest of
// the answering member's view. Two members asked in a row with another view than this one's, half a
// second apart, are no rumour on its way: states are exchanged with the second.
//
// memberlist calls NotifyPingComplete from its one probing goroutine only.
type views struct {
	g    *Gossip
	odd  int       // answers in a row with another view
	last time.Time // of an exchange
}

var _ memberlist.PingDelegate = (*views)(nil)

const (
	oddEnough = 2
	// compareEvery bounds what it costs when members change all the time.
	compareEvery = time.Second
	digestSize   = 8
)

// AckPayload implements memberlist.PingDelegate.
func (v *views) AckPayload() []byte {
	return binary.BigEndian.AppendUint64(nil, v.g.book.digest())
}

// NotifyPingComplete implements memberlist.PingDelegate.
func (v *views) NotifyPingComplete(other *memberlist.Node, _ time.Duration, payload []byte) {
	if len(payload) != digestSize {
		return
	}
	if binary.BigEndian.Uint64(payload) == v.g.book.digest() {
		v.odd = 0
		return
	}
	v.odd++
	addr, ok := nodeAddr(other)
	if !ok || v.odd < oddEnough || time.Since(v.last) < compareEvery {
		return
	}
	v.odd, v.last = 0, time.Now()
	v.g.spawn(func() {
		ctx, cancel := context.WithTimeout(v.g.life, dialTimeout)
		defer cancel()
		if err := v.g.exchange(ctx, addr); err != nil {
			v.g.log.Debug("views differ", "peer", other.Name, "err", err)
		}
	})
}

// digest is the same for all members that believe the same of those alive.
func (b *book) digest() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	var sum uint64
	for _, e := range b.members {
		if e.State != Alive {
			continue
		}
		h := fnv.New64a()
		for _, part := range [][]byte{[]byte(e.Name), []byte(e.Addr), encodeMeta(e.Meta, e.leaving)} {
			_, _ = h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(part)))) //nolint:gosec // 512 bytes at most
			_, _ = h.Write(part)
		}
		sum += h.Sum64() // in whatever order
	}
	return sum
}
