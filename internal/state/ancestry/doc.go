// Package ancestry is the family tree of histories: which lineage came from which, at which point they
// parted, and what one has merged of another. All of it is values and pure functions.
//
// Every takeover without a majority begins a new lineage. A point of a history means the same in all
// lineages that descend from it, so two lineages of one cluster can always tell what the other lacks.
package ancestry
