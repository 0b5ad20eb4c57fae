package swarm

import (
	"context"
	"io"
)

// Backend does what the Handler was asked. A part that is nil is answered with 501 and a clear
// line. Every method may be called at any time, also concurrently.
type Backend struct {
	Reader    Reader
	Tokens    Tokens
	Conflicts Conflicts
	Backups   Backups
	Files     BackupFiles
	Drills    Drills
	Nodes     Nodes
	Keys      Keys
}

// Progress tells the person who waits what goes on: one line, lower case, no full stop. It never
// blocks for long and may be called from any goroutine until the method that got it returns.
//
// The context of a method that reports progress ends when its client goes away. What must not stop
// halfway goes on under context.WithoutCancel; what must be put back is put back.
type Progress func(format string, args ...any)

// Reader is the swarm at a glance.
type Reader interface {
	Status(ctx context.Context) (Status, error)
	Members(ctx context.Context) ([]Member, error)
}

// Tokens admit newcomers.
type Tokens interface {
	List(ctx context.Context) ([]Token, error)
	Create(ctx context.Context, req TokenRequest) (NewToken, error)
	Revoke(ctx context.Context, id string) error
}

// Conflicts is the journal of what merges overwrote.
type Conflicts interface {
	List(ctx context.Context) ([]Conflict, error) // without values
	Get(ctx context.Context, id string) (Conflict, error)
	Undo(ctx context.Context, id string, req UndoRequest) error
}

// Backups are made, listed and brought back.
type Backups interface {
	List(ctx context.Context) (BackupList, error)
	Create(ctx context.Context, req BackupRequest, say Progress) (Backup, error)
	Restore(ctx context.Context, id string, say Progress) error
	Delete(ctx context.Context, id string) error
	Policy(ctx context.Context) (BackupPolicy, error)
	SetPolicy(ctx context.Context, p BackupPolicy) error
}

// BackupFiles carries backups to and from other places.
type BackupFiles interface {
	Open(ctx context.Context, id string) (file io.ReadCloser, size int64, err error)
	RestoreFrom(ctx context.Context, file io.Reader, say Progress) error // reads all of file before it changes anything
}

// Drills rehearse the loss of a node.
type Drills interface {
	Drill(ctx context.Context, req DrillRequest, say Progress) (DrillResult, error)
}

// Nodes changes who belongs to the swarm, and who is known to be off.
type Nodes interface {
	Remove(ctx context.Context, name string) error
	Fence(ctx context.Context, name string) error
	Unfence(ctx context.Context, name string) error
	Leave(ctx context.Context, req LeaveRequest, say Progress) error // this node; its agent ends after the answer
}

// Keys replaces what the swarm's trust rests on.
type Keys interface {
	RotateCA(ctx context.Context, say Progress) error
	RotateGossipKey(ctx context.Context, say Progress) error
}
