package swarm

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
)

func one(path, id string, verb ...string) string {
	path += "/" + url.PathEscape(id)
	for _, v := range verb {
		path += "/" + v
	}
	return path
}

// Status is the swarm as the server sees it.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return call[Status](ctx, c, http.MethodGet, pathStatus, nil)
}

// Members lists all members.
func (c *Client) Members(ctx context.Context) ([]Member, error) {
	return items[Member](ctx, c, pathMembers)
}

func items[T any](ctx context.Context, c *Client, path string) ([]T, error) {
	l, err := call[List[T]](ctx, c, http.MethodGet, path, nil)
	return l.Items, err
}

func act(ctx context.Context, c *Client, method, path string, in any) error {
	_, err := call[None](ctx, c, method, path, in)
	return err
}

// Tokens lists the join tokens, without their secrets.
func (c *Client) Tokens(ctx context.Context) ([]Token, error) {
	return items[Token](ctx, c, pathTokens)
}

// CreateToken makes a join token; its secret is in this answer only.
func (c *Client) CreateToken(ctx context.Context, req TokenRequest) (NewToken, error) {
	return call[NewToken](ctx, c, http.MethodPost, pathTokens, req)
}

// RevokeToken makes a token worthless.
func (c *Client) RevokeToken(ctx context.Context, id string) error {
	return act(ctx, c, http.MethodDelete, one(pathTokens, id), nil)
}

// Conflicts lists the journal without values.
func (c *Client) Conflicts(ctx context.Context) ([]Conflict, error) {
	return items[Conflict](ctx, c, pathConflicts)
}

// Conflict returns one entry of the journal with both values.
func (c *Client) Conflict(ctx context.Context, id string) (Conflict, error) {
	return call[Conflict](ctx, c, http.MethodGet, one(pathConflicts, id), nil)
}

// UndoConflict writes the overwritten version back.
func (c *Client) UndoConflict(ctx context.Context, id string, req UndoRequest) error {
	return act(ctx, c, http.MethodPost, one(pathConflicts, id, "undo"), req)
}

// Backups lists the backups of all nodes that answer.
func (c *Client) Backups(ctx context.Context) (BackupList, error) {
	return call[BackupList](ctx, c, http.MethodGet, pathBackups, nil)
}

// CreateBackup makes a backup now.
func (c *Client) CreateBackup(ctx context.Context, req BackupRequest, say func(string)) (Backup, error) {
	return follow[Backup](ctx, c, pathBackups, req, say)
}

// RestoreBackup replaces the state of the whole swarm with a backup's.
func (c *Client) RestoreBackup(ctx context.Context, id string, say func(string)) error {
	_, err := follow[None](ctx, c, one(pathBackups, id, "restore"), nil, say)
	return err
}

// RestoreFile is RestoreBackup with a file from here.
func (c *Client) RestoreFile(ctx context.Context, file io.Reader, say func(string)) error {
	_, err := followBody[None](ctx, c, pathRestore, file, "application/octet-stream", say)
	return err
}

// DownloadBackup copies a backup's file into w.
func (c *Client) DownloadBackup(ctx context.Context, id string, w io.Writer) (int64, error) {
	resp, err := c.send(ctx, http.MethodGet, one(pathBackups, id, "file"), nil, "")
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	n, err := io.Copy(w, resp.Body)
	if err != nil {
		return n, fmt.Errorf("download backup %s: %w", id, err)
	}
	return n, nil
}

// DeleteBackup removes a backup's file.
func (c *Client) DeleteBackup(ctx context.Context, id string) error {
	return act(ctx, c, http.MethodDelete, one(pathBackups, id), nil)
}

// BackupPolicy tells when backups are made and how many are kept.
func (c *Client) BackupPolicy(ctx context.Context) (BackupPolicy, error) {
	return call[BackupPolicy](ctx, c, http.MethodGet, pathBackupPolicy, nil)
}

// SetBackupPolicy changes it.
func (c *Client) SetBackupPolicy(ctx context.Context, p BackupPolicy) error {
	return act(ctx, c, http.MethodPut, pathBackupPolicy, p)
}

// Drill rehearses the loss of a node.
func (c *Client) Drill(ctx context.Context, req DrillRequest, say func(string)) (DrillResult, error) {
	return follow[DrillResult](ctx, c, pathDrill, req, say)
}

// RemoveNode takes a node out of the swarm for good.
func (c *Client) RemoveNode(ctx context.Context, name string) error {
	return act(ctx, c, http.MethodDelete, one(pathNodes, name), nil)
}

// FenceNode vouches that a node that does not answer is off.
func (c *Client) FenceNode(ctx context.Context, name string) error {
	return act(ctx, c, http.MethodPost, one(pathNodes, name, "fence"), nil)
}

// UnfenceNode takes that back.
func (c *Client) UnfenceNode(ctx context.Context, name string) error {
	return act(ctx, c, http.MethodPost, one(pathNodes, name, "unfence"), nil)
}

// Leave takes the node that serves this API out of the swarm.
func (c *Client) Leave(ctx context.Context, req LeaveRequest, say func(string)) error {
	_, err := follow[None](ctx, c, pathLeave, req, say)
	return err
}

// RotateCA replaces the cluster's certificate authority.
func (c *Client) RotateCA(ctx context.Context, say func(string)) error {
	_, err := follow[None](ctx, c, pathRotateCA, nil, say)
	return err
}

// RotateGossipKey replaces the key of the gossip.
func (c *Client) RotateGossipKey(ctx context.Context, say func(string)) error {
	_, err := follow[None](ctx, c, pathRotateGossip, nil, say)
	return err
}
