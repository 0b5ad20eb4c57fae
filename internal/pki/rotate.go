package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Phase is how far the rotation of a key has come.
type Phase string

// The phases of a rotation. Each is one generation of keys: a node that has not heard of the next
// phase yet still understands those that have.
const (
	// Steady: there is one key. Next: a new one is believed, but not used.
	Steady Phase = "steady"
	// Believed: the new key is believed everywhere once every node has this generation. Next: it is used.
	Believed Phase = "believed"
	// Used: the new key is used; the old one is still believed. Next: the old one is dropped.
	Used Phase = "used"
)

// CAPhase is the phase of the rotation of the cluster CA: it tells what the next RotateCA would do.
func (a *Authority) CAPhase() Phase { return a.ring().caPhase() }

// GossipPhase is the phase of the gossip key's rotation.
func (a *Authority) GossipPhase() Phase {
	return phase(a.ring().Gossip, func(k gossipKey) int { return k.Number })
}

// EncryptionPhase is the phase of the rotation of the key for Secrets at rest.
func (a *Authority) EncryptionPhase() Phase { return phase(a.ring().Encryption, encryptionKey.number) }

// RotateCA returns the bundle of the next phase of replacing the cluster CA: believe both, issue by
// the new one, drop the old one. It changes nothing: the bundle is for Update, on every node.
//
// Go on to the next phase when every node has the generation, and from Used when every certificate
// of the old CA that is still needed was replaced: nodes and API servers do that by themselves at
// the update, kubeconfigs and join tokens must be made anew.
func (a *Authority) RotateCA() ([]byte, error) {
	r := a.ring()
	b := r.successor()
	switch r.caPhase() {
	case Believed:
		at := slices.IndexFunc(r.trusted, r.next.cert.Equal)
		b.CAs = toFront(b.CAs, at)
		b.CAKey, b.NextCAKey = b.NextCAKey, ""
	case Used:
		b.CAs = b.CAs[:1]
	default:
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, fmt.Errorf("make key: %w", err)
		}
		c, err := newCA(key, clusterCA, a.now())
		if err != nil {
			return nil, fmt.Errorf("make CA: %w", err)
		}
		if b.NextCAKey, err = keyPEM(key); err != nil {
			return nil, err
		}
		b.CAs = append(b.CAs, string(c.pem))
	}
	return encodeBundle(b)
}

// RotateGossipKey returns the bundle of the next phase of replacing the gossip key, like RotateCA.
func (a *Authority) RotateGossipKey() ([]byte, error) {
	b := a.ring().successor()
	b.Gossip = rotate(b.Gossip, func(k gossipKey) int { return k.Number }, gossipKey{
		Number: slices.MaxFunc(b.Gossip, func(x, y gossipKey) int { return x.Number - y.Number }).Number + 1,
		Key:    randomKey(),
	})
	return encodeBundle(b)
}

// RotateEncryptionKey returns the bundle of the next phase of replacing the key for Secrets at
// rest, like RotateCA. Before the last phase, from Used, every Secret must have been rewritten.
func (a *Authority) RotateEncryptionKey() ([]byte, error) {
	b := a.ring().successor()
	k, err := newEncryptionKey(nextName(b.Encryption))
	if err != nil {
		return nil, err
	}
	b.Encryption = rotate(b.Encryption, encryptionKey.number, k)
	return encodeBundle(b)
}

func encodeBundle(b bundle) ([]byte, error) {
	r, err := newKeyring(b)
	if err != nil {
		return nil, err
	}
	return r.data, nil
}

func (r *keyring) caPhase() Phase {
	switch {
	case r.next != nil:
		return Believed
	case len(r.trusted) > 1:
		return Used
	}
	return Steady
}

// phase tells it from the order of keys: the first is used, a higher number is newer.
func phase[K any](keys []K, number func(K) int) Phase {
	switch {
	case len(keys) == 1:
		return Steady
	case newest(keys, number) != 0:
		return Believed
	}
	return Used
}

// rotate returns the keys of the next phase; fresh is taken when a rotation begins.
func rotate[K any](keys []K, number func(K) int, fresh K) []K {
	switch phase(keys, number) {
	case Believed:
		return toFront(keys, newest(keys, number))
	case Used:
		return keys[:1]
	}
	return append(keys, fresh)
}

// toFront returns list with the element at i moved to the front.
func toFront[K any](list []K, i int) []K {
	front := append([]K{list[i]}, list[:i]...)
	return append(front, list[i+1:]...)
}

func newest[K any](keys []K, number func(K) int) int {
	at := 0
	for i := range keys {
		if number(keys[i]) > number(keys[at]) {
			at = i
		}
	}
	return at
}

// number is the N of keyN, 0 for another name.
func (k encryptionKey) number() int {
	n, err := strconv.Atoi(strings.TrimPrefix(k.Name, "key"))
	if err != nil {
		return 0
	}
	return n
}
