package swarm

import "time"

// Roles of a member. A role is a duty that moves by itself, never a kind of node.
const (
	RoleLeader  = "leader"  // orders writes and runs the deciders
	RoleVoter   = "voter"   // its acknowledgement counts
	RoleReplica = "replica" // has everything, does not vote
)

// States of a member, as gossip sees it.
const (
	StateAlive   = "alive"
	StateSuspect = "suspect"
	StateDead    = "dead"
	// StateJoining is a node that was admitted, and whose agent has not been started or reached yet.
	StateJoining = "joining"
	StateLeft    = "left"
)

// List is how everything plural is answered.
type List[T any] struct {
	Items []T `json:"items"`
}

// Status is the swarm as one node sees it.
type Status struct {
	ClusterID string   `json:"clusterID"`
	Node      string   `json:"node"`             // the node that answers
	Leader    string   `json:"leader,omitempty"` // empty: none is known
	Revision  uint64   `json:"revision"`         // last one applied here: the newest resourceVersion
	Lineage   Lineage  `json:"lineage"`
	Quorum    Quorum   `json:"quorum"`
	Health    string   `json:"health"`              // Quorum in words; filled in by the Handler when empty
	Conflicts int      `json:"conflicts,omitempty"` // overwrites of somebody's work that nobody undid
	Members   []Member `json:"members"`
}

// Lineage is one unbroken history of the state.
type Lineage struct {
	ID      string     `json:"id"`
	Born    time.Time  `json:"born"`
	Parents []Ancestor `json:"parents,omitempty"` // newest first
}

// Ancestor is a lineage that another one forked off at a revision, or took in.
type Ancestor struct {
	ID       string    `json:"id"`
	Time     time.Time `json:"time"`
	Revision uint64    `json:"revision"`
}

// Quorum is what decides whether writes are acknowledged.
type Quorum struct {
	Leader bool `json:"leader"` // a leader is known and reached
	Voters int  `json:"voters"`
	Alive  int  `json:"alive"`            // voters that answer
	Freeze bool `json:"freeze,omitempty"` // --on-quorum-loss=freeze: no takeover
}

// Member is a node as the swarm sees it.
type Member struct {
	Name       string    `json:"name"`
	Address    string    `json:"address"`              // where peers reach it, host:port
	APIAddress string    `json:"apiAddress,omitempty"` // where it serves the Kubernetes API, host:port
	State      string    `json:"state"`
	Since      time.Time `json:"since"` // in that state
	Role       string    `json:"role,omitempty"`
	Release    string    `json:"release,omitempty"`
	Lineage    string    `json:"lineage,omitempty"`
	Lag        uint64    `json:"lag"` // entries behind the leader
	Fenced     bool      `json:"fenced,omitempty"`
}

// Token admits newcomers. Its secret is shown once, in NewToken.
type Token struct {
	ID          string    `json:"id"`
	Description string    `json:"description,omitempty"`
	Created     time.Time `json:"created"`
	Expires     time.Time `json:"expires,omitzero"` // zero: never
	Uses        int       `json:"uses"`             // how often it may be used, 0: without limit
	Used        int       `json:"used"`
}

// TokenRequest asks for a token.
type TokenRequest struct {
	TTL         Duration `json:"ttl"`  // 0: it never expires
	Uses        int      `json:"uses"` // 0: without limit
	Description string   `json:"description,omitempty"`
}

// NewToken is a token with its secret.
type NewToken struct {
	Token
	Secret      string `json:"token"`
	JoinCommand string `json:"joinCommand"` // ready to paste on the newcomer
}

// Conflict is one overwrite that a merge made: both sides had changed the key.
type Conflict struct {
	ID          string    `json:"id"`
	Key         string    `json:"key"`                // in the store
	Resource    string    `json:"resource,omitempty"` // "deployments.apps", when the key is an API object's
	Namespace   string    `json:"namespace,omitempty"`
	Name        string    `json:"name,omitempty"`
	Time        time.Time `json:"time"` // of the merge
	Kept        Version   `json:"kept"`
	Overwritten Version   `json:"overwritten"`
	Undone      time.Time `json:"undone,omitzero"`
	// Derived: nobody's work was lost, only status, or what a controller made and has made again since.
	Derived bool `json:"derived,omitempty"`
}

// Version is one side of a conflict. Lists leave the value out.
type Version struct {
	Written time.Time `json:"written"`
	Node    string    `json:"node,omitempty"`    // that accepted the write
	Lineage string    `json:"lineage,omitempty"` // it was written in
	Deleted bool      `json:"deleted,omitempty"` // the key was deleted
	Value   *Value    `json:"value,omitempty"`
}

// UndoRequest puts the overwritten version back.
type UndoRequest struct {
	Force bool `json:"force,omitempty"` // although the object changed since the merge
}

// Backup is one backup file on a node.
type Backup struct {
	ID       string    `json:"id"`
	Node     string    `json:"node"`
	Path     string    `json:"path"` // on that node
	Created  time.Time `json:"created"`
	Revision uint64    `json:"revision"`
	Objects  int       `json:"objects"`
	Size     int64     `json:"size"`
	Release  string    `json:"release,omitempty"`
	Reason   string    `json:"reason,omitempty"`  // "hourly", or what the person said
	Verified time.Time `json:"verified,omitzero"` // read back and found whole
}

// BackupList is the backups of the nodes that answered.
type BackupList struct {
	List[Backup]
	Silent []string `json:"silent,omitempty"` // nodes that did not answer; what they have is not listed
}

// BackupRequest asks for a backup now.
type BackupRequest struct {
	Reason string `json:"reason,omitempty"`
}

// BackupPolicy is when backups are made and how many are kept.
type BackupPolicy struct {
	Every Duration `json:"every"` // 0: none by itself
	Keep  int      `json:"keep"`  // the newest so many, at least 1
}

// DrillRequest asks to kill a node's agent and pods, and to put everything back.
type DrillRequest struct {
	Node   string `json:"node,omitempty"` // empty: the backend chooses
	DryRun bool   `json:"dryRun,omitempty"`
}

// DrillResult is what a drill measured, or would do.
type DrillResult struct {
	Node     string    `json:"node"`
	DryRun   bool      `json:"dryRun,omitempty"`
	Plan     []string  `json:"plan,omitempty"` // what was, or would be, done: one sentence each
	Pods     int       `json:"pods"`           // that had to be replaced
	Timings  []Timing  `json:"timings,omitempty"`
	Finished time.Time `json:"finished"`
}

// Timing is one figure of a drill beside its budget.
type Timing struct {
	Name   string   `json:"name"` // detection, replacement, return
	Took   Duration `json:"took"`
	Budget Duration `json:"budget"`
}

// LeaveRequest takes the node that answers out of the swarm.
type LeaveRequest struct {
	Force bool `json:"force,omitempty"` // although it is the last one, or the swarm cannot be told
}

// None is the result of an operation that only succeeds.
type None struct{}
