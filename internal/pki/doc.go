// Package pki keeps a node's keys and certificates as files below one directory: the cluster CA,
// the front-proxy CA of the API aggregation layer, the serving certificate, the node's own, the key
// that signs ServiceAccount tokens, the keys that encrypt Secrets at rest, and those of gossip.
//
// Files (all 0600, the directory 0700; every write is atomic: temporary file, sync, rename):
//
//	ca.crt                             every cluster CA that is believed, the issuer first
//	                                   (ECDSA P-256, 10 years): servers, clients, nodes
//	ca-issuer.crt ca.key               the CA that issues now
//	ca-next.key                        while the CA is rotated: the key of the next issuer
//	front-proxy-ca.crt .key            signs only front-proxy-client: a leaked or wrongly approved
//	                                   client certificate can never pose as the front proxy
//	front-proxy-client.crt .key        shown by the API server to aggregated APIs and webhooks
//	apiserver.crt .key                 serving certificate (90 days)
//	node.crt .key                      shown to other nodes (90 days)
//	sa.key                             ServiceAccount token key (ECDSA P-256)
//	encryption.yaml                    upstream EncryptionConfiguration (secretbox keys)
//	cluster.json                       the cluster's name, the generation of its keys, gossip keys,
//	                                   the key that seals what is replicated
//	sums                               SHA-256 of the files above that nothing else could be made from
//	                                   again: ca, front-proxy-ca, sa, encryption, cluster
//	update.json                        only while keys are being changed: see below
//
// A key is always written before the certificate that needs it, so a crash in between is
// repaired at the next Open. A certificate whose key is gone is an error that names the file:
// nothing is ever replaced silently by a new CA.
//
// Damage is an error that names the file: one flipped bit in encryption.yaml would be a key that
// reads well and opens no Secret. A directory without sums, of an earlier release or cut off while
// it was made, is taken as it is and gets them. What the CAs issue is just issued again.
//
// What all nodes of a cluster share is a bundle. Changing keys means a bundle of the next
// generation, which every node gets and gives to Update. It is written to update.json first, then
// to the files, so that a crash leaves the old keys or, after the next Open, the new ones.
//
// A key is rotated in three such changes: believe the new one, use it, drop the old one. A node
// that is one change behind still understands all others.
package pki
