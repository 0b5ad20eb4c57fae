// Package podfile makes the small files that a kubelet puts into containers or reads from them:
// /etc/hosts, /etc/resolv.conf, the hostname, and the termination message.
package podfile
