// Package duplicate repairs what two halves of a cluster handed out twice while they did not see each
// other: cluster IPs and node ports of Services, and pod ranges of Nodes.
//
// The older object keeps what both have. The newer Service gets a fresh address in place: it is turned
// into a kind of Service without that address and back, with what it is to become kept in an annotation,
// so it is never absent, keeps its UID and owners, and whoever leads next finishes what was begun. A
// Node cannot change its range while pods run in it: there it is said, loudly, and a person decides.
package duplicate
