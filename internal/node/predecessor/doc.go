// Package predecessor knows the pods that a merge took from the API while they may still run: until
// they have ended, what took their place must not be started. Only pods that must not run twice count.
//
// That such a pod was lost is a record of the conflict journal, written together with what the merge
// kept, so no replica knows of the one without the other. That it has ended is an end notice: a key
// below EndedPrefix, written by the node that it ran on, or by the leader when that node has had the
// time to stop it or is fenced. A notice is of a record and not of a UID: the same pod may come back by
// another merge, run again and be lost again, and the notice of the first time says nothing of then.
package predecessor
