// Package pki keeps a node's keys and certificates as files below one directory: the cluster CA,
// the front-proxy CA of the API aggregation layer, the serving certificate, the key that signs
// ServiceAccount tokens, and the keys that encrypt Secrets at rest.
//
// Files (all 0600, the directory 0700; every write is atomic: temporary file, sync, rename):
//
//	ca.crt ca.key                      cluster CA (ECDSA P-256, 10 years): servers, clients, nodes
//	front-proxy-ca.crt .key            signs only front-proxy-client: a leaked or wrongly approved
//	                                   client certificate can never pose as the front proxy
//	front-proxy-client.crt .key        shown by the API server to aggregated APIs and webhooks
//	apiserver.crt .key                 serving certificate (90 days)
//	sa.key                             ServiceAccount token key (ECDSA P-256)
//	encryption.yaml                    upstream EncryptionConfiguration (secretbox keys)
//
// A key is always written before the certificate that needs it, so a crash in between is
// repaired at the next Open. A certificate whose key is gone is an error that names the file:
// nothing is ever replaced silently by a new CA.
package pki
