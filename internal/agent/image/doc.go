// Package image brings a container's image onto this machine by its pull policy, with a kubelet's
// back-off, events and words. An image that is here is found without any network.
package image
