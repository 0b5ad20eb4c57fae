// Package hlc is a hybrid logical clock: stamps that order writes across nodes.
package hlc
