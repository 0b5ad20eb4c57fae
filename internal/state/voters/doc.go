// Package voters decides which replicas of a lineage have a vote: up to five, chosen from those
// alive, replaced soon after they die, so that losing one after another never stops writes.
//
// Plan is pure and returns one change at a time, because Raft makes them one at a time; the leader
// makes it and asks again.
package voters
