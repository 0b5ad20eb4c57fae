// Package nodeports hands out the node ports of Services on any number of API servers at the same time.
//
// A port is taken by whoever makes its key in the store. Upstream keeps a bit set in one object: after a
// partition the newer one would win as a whole, and every port that the other side had handed out would
// be free again. Keys merge one by one.
package nodeports
