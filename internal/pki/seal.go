package pki

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"fmt"
)

// sealHeader begins what Seal returns; it is authenticated with the content.
const sealHeader = "psseal1\x00"

// Seal encrypts b with the cluster key (AES-256-GCM, random nonce), for what is replicated and
// backed up but only a node may read. One key is good for 2^32 calls.
func (a *Authority) Seal(b []byte) []byte {
	return append([]byte(sealHeader), a.ring().seal.Seal(nil, nil, b, []byte(sealHeader))...)
}

// Unseal returns what was given to Seal on any node of this cluster.
func (a *Authority) Unseal(b []byte) ([]byte, error) {
	sealed, ok := bytes.CutPrefix(b, []byte(sealHeader))
	if !ok {
		return nil, errors.New("unseal: not sealed, or by a newer release")
	}
	content, err := a.ring().seal.Open(nil, nil, sealed, []byte(sealHeader))
	if err != nil {
		return nil, errors.New("unseal: damaged, or sealed with the key of another cluster")
	}
	return content, nil
}

func newSeal(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("cluster key: %w", err)
	}
	seal, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("cluster key: %w", err)
	}
	return seal, nil
}
