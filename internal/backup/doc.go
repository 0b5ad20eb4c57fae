// Package backup writes the state of a swarm to a file and reads it back.
//
// A backup is a gzip-compressed tar archive, readable with ordinary tools:
//
//	backup.json                      what it is (Info), with the checksum of every other part
//	state.snapshot                   the whole state, as replicas exchange it
//	keys.json                        the swarm's keys: whoever has the file can read its Secrets
//	objects/NAMESPACE/KIND/NAME.yaml every object as `kubectl get -o yaml` shows it, for people and kubectl apply
//
// Cluster-scoped objects are below objects/_cluster. Every backup is read back and compared before
// it gets its final name, so a file called *.tar.gz in the directory is whole.
package backup
