// Package bare brings pods without a controller back to what they were when a backup was made.
//
// Pods run on nodes, so all of it goes through the API: a node ends what was there, the scheduler finds
// a place anew.
package bare
