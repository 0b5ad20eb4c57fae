// Package preflight looks at the machine before anything is made: programs, ports, directories.
package preflight
