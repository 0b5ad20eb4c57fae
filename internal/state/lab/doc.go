// Package lab is what simulations of whole clusters may change about a replica: its clock, its disk,
// and where it stops to be watched.
package lab
