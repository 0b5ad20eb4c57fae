// Package podmantest is a Podman in memory, for the tests of those who use the podman package.
package podmantest
