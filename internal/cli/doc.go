// Package cli is psctl: kubectl's command tree under our name, and the swarm's own verbs (package
// verbs) beside it.
//
// Where psctl finds its cluster, first match wins: --kubeconfig, $KUBECONFIG, ~/.psctl/config,
// the admin kubeconfig of a node on this machine when it may be read, ~/.kube/config.
// --server and --token, or $PSCTL_SERVER and $PSCTL_TOKEN, override what is found there.
package cli
