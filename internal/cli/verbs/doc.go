// Package verbs holds what psctl can say that kubectl cannot: psctl swarm and psctl node.
//
// Listings have -o json, yaml and wide. What takes long tells its progress on standard error. What
// destroys something says exactly what will happen and asks, unless --yes was said; where nobody
// can be asked, it refuses.
package verbs
