package gossip

import (
	"log"
	"time"

	"github.com/hashicorp/memberlist"
)

// The timings. With memberlist's own (probe 1 s, suspicion 4) a dead member is known to all after
// 5.3 s among 5 and 9.3 s among 50; with these after about 2.6 s and 4.1 s. TestDetection measures
// it again, in virtual time with lost packets.
const (
	// Each member probes one other this often. The answer by datagram has probeTimeout; members
	// asked to probe instead, and a stream, have the rest of the interval.
	probeInterval = 500 * time.Millisecond
	probeTimeout  = 250 * time.Millisecond
	// A suspect has suspicionMult * max(1, log10 n) probe intervals to contradict, 1.5 s among up to
	// 10, after a second member has confirmed the suspicion, and suspicionMax times that without.
	suspicionMult = 3
	suspicionMax  = 3
	// A member that cannot trust its own network (probes fail, nobody confirms) slows its probes
	// down, at most this many times. With memberlist's 8 here and 6 for suspicionMax, 1 survivor of 5
	// takes 18 s to see that it is alone, 10 of 50 take 53 s, and 1 of 50 more than 200 s; with these
	// 8 s, 13 s and 57 s (TestPartition).
	awarenessMax = 2
	// Rumours go to three members this often.
	gossipInterval = 100 * time.Millisecond
	// A rumour is sent retransmitMult * ceil(log10(n+1)) times by every member that hears it. Never
	// lower it to save packets: with 2, views differed for 24 to 38 s among 25 to 50 members, and with
	// memberlist's 4 one rumour in 40 had missed somebody for 10 s among 5 without any loss: four
	// packets by each of four members miss the fifth one time in 200, six one time in 10,000. Nothing
	// is sent while there is no news. What is missed nevertheless is found by comparing (views.go).
	retransmitMult = 6
	// Whole states are exchanged with a random member this often (half as often above 32), whether
	// views differ or not.
	pushPullInterval = 10 * time.Second
	// A member that died is told so for this long, to contradict. Run takes over from there.
	gossipToTheDead = 30 * time.Second

	dialTimeout   = 2 * time.Second // to a member that does not answer; Run tries again anyway
	streamTimeout = 5 * time.Second // for reading and writing a whole state
)

// settings are memberlist's, for this member.
func (g *Gossip) settings(t *transport, ring *memberlist.Keyring) *memberlist.Config {
	c := memberlist.DefaultLANConfig()
	c.Name, c.Transport, c.Label = g.name, t, g.label
	c.AdvertiseAddr, c.AdvertisePort = g.addr.Addr().String(), int(g.addr.Port())
	c.Keyring, c.GossipVerifyIncoming, c.GossipVerifyOutgoing = ring, true, true
	// LZW takes 64 KB and more time than the bytes it saves for every packet, probes too.
	c.EnableCompression = false

	c.ProbeInterval, c.ProbeTimeout = probeInterval, probeTimeout
	c.SuspicionMult, c.SuspicionMaxTimeoutMult = suspicionMult, suspicionMax
	c.AwarenessMaxMultiplier = awarenessMax
	c.GossipInterval, c.RetransmitMult = gossipInterval, retransmitMult
	c.GossipToTheDeadTime, c.PushPullInterval = gossipToTheDead, pushPullInterval
	c.TCPTimeout = streamTimeout
	// A dead member may come back at another address at once; one that is alive may not.
	c.DeadNodeReclaimTime = time.Nanosecond

	c.Delegate, c.Events, c.Conflict, c.Alive = g.book, g.book, g.book, g.book
	c.Ping = &views{g: g}
	c.Logger = log.New(newBridge(g.log), "", 0)
	return c
}
