// Package engine is one run of Raft: started on a state machine and stores, watched for changes of
// leadership, and stopped without leaving anybody waiting.
package engine
