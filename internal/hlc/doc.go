// Package hlc is a hybrid logical clock: stamps that order writes across nodes.
//
// A stamp follows wall time as long as wall time advances, and counts when it does not, so stamps
// of one clock never repeat or go back, and a write that was made knowing another is always newer.
package hlc
