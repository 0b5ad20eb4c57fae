// Package tombs remembers which keys were deleted and when, for as long as a merge with another lineage
// may have to know, in bounded memory.
package tombs
