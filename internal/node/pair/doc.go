// Package pair is a listener within the process: both ends of its connections are the kernel's, and
// nobody outside can reach it.
package pair
