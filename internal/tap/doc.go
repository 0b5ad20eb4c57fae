// Package tap lends a shared informer factory for a while.
//
// Informers are costly and live as long as the process. What listens to them may come and go: a
// node runs the controllers while it leads, and not otherwise. Upstream's parts never take their
// event handlers back, since their process ends with them; each would leave two goroutines and
// itself behind. A tap hands out the same informers, remembers every handler that was added
// through it and removes them all when it is closed.
//
// Handlers are told of an object that took the place of another with the same name as of two: when
// halves of a cluster become one again, an object may have another UID than before, and a pod another node.
package tap
