// Package ledger is the agent's book of what Podman has: containers and pods of this node.
package ledger
