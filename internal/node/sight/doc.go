// Package sight counts, for the agent's fence, how many of the nodes that there are this one sees.
package sight
