package swarm

import (
	"context"
	"net/http"
	"strings"
)

// Prefix is where the extension API lives.
const Prefix = "/swarm/v1/"

const (
	pathStatus       = Prefix + "status"
	pathMembers      = Prefix + "members"
	pathTokens       = Prefix + "tokens"
	pathConflicts    = Prefix + "conflicts"
	pathBackups      = Prefix + "backups"
	pathBackupPolicy = Prefix + "backup-policy"
	pathRestore      = Prefix + "restore"
	pathDrill        = Prefix + "drill"
	pathNodes        = Prefix + "nodes"
	pathLeave        = Prefix + "leave"
	pathRotateCA     = Prefix + "rotate-ca"
	pathRotateGossip = Prefix + "rotate-gossip-key"
)

// route is one method of one path.
type route struct {
	method, path string
	have         bool   // the backend has the part
	part         string // its name in words
	long         bool   // answers with a stream, or carries a file
	serve        http.HandlerFunc
}

func routes(b Backend) []route {
	all := [][]route{
		readerRoutes(b.Reader), tokenRoutes(b.Tokens), conflictRoutes(b.Conflicts), backupRoutes(b.Backups),
		fileRoutes(b.Files), drillRoutes(b.Drills), nodeRoutes(b.Nodes), keyRoutes(b.Keys),
	}
	var flat []route
	for _, group := range all {
		flat = append(flat, group...)
	}
	return flat
}

func readerRoutes(p Reader) []route {
	const part = "status"
	return []route{
		{http.MethodGet, pathStatus, p != nil, part, false, answer(func(r *http.Request) (any, error) {
			s, err := p.Status(r.Context())
			if s.Health == "" {
				s.Health = s.Quorum.Words()
			}
			return s, err
		})},
		{http.MethodGet, pathMembers, p != nil, part, false, list(func(r *http.Request) ([]Member, error) { return p.Members(r.Context()) })},
	}
}

func tokenRoutes(p Tokens) []route {
	const part = "join tokens"
	return []route{
		{http.MethodGet, pathTokens, p != nil, part, false, list(func(r *http.Request) ([]Token, error) { return p.List(r.Context()) })},
		{http.MethodPost, pathTokens, p != nil, part, false, answer(func(r *http.Request) (any, error) {
			req, err := body[TokenRequest](r)
			switch {
			case err != nil:
				return nil, err
			case req.TTL < 0:
				return nil, Invalid("ttl %s is negative: say 0 for a token that never expires", req.TTL)
			case req.Uses < 0:
				return nil, Invalid("uses %d is negative: say 0 for no limit", req.Uses)
			}
			return p.Create(r.Context(), req)
		})},
		{http.MethodDelete, pathTokens + "/{id}", p != nil, part, false, done(func(ctx context.Context, id string) error { return p.Revoke(ctx, id) })},
	}
}

func conflictRoutes(p Conflicts) []route {
	const part = "conflict journal"
	return []route{
		{http.MethodGet, pathConflicts, p != nil, part, false, list(func(r *http.Request) ([]Conflict, error) { return p.List(r.Context()) })},
		{http.MethodGet, pathConflicts + "/{id}", p != nil, part, false, answer(func(r *http.Request) (any, error) {
			return p.Get(r.Context(), r.PathValue("id"))
		})},
		{http.MethodPost, pathConflicts + "/{id}/undo", p != nil, part, false, answer(func(r *http.Request) (any, error) {
			req, err := body[UndoRequest](r)
			if err != nil {
				return nil, err
			}
			return None{}, p.Undo(r.Context(), r.PathValue("id"), req)
		})},
	}
}

func backupRoutes(p Backups) []route {
	const part = "backups"
	return []route{
		{http.MethodGet, pathBackups, p != nil, part, false, answer(func(r *http.Request) (any, error) { return p.List(r.Context()) })},
		{http.MethodPost, pathBackups, p != nil, part, true, told(func(r *http.Request, req BackupRequest, say Progress) (any, error) {
			return p.Create(r.Context(), req, say)
		})},
		{http.MethodPost, pathBackups + "/{id}/restore", p != nil, part, true, told(func(r *http.Request, _ None, say Progress) (any, error) {
			return None{}, p.Restore(r.Context(), r.PathValue("id"), say)
		})},
		{http.MethodDelete, pathBackups + "/{id}", p != nil, part, false, done(func(ctx context.Context, id string) error { return p.Delete(ctx, id) })},
		{http.MethodGet, pathBackupPolicy, p != nil, part, false, answer(func(r *http.Request) (any, error) { return p.Policy(r.Context()) })},
		{http.MethodPut, pathBackupPolicy, p != nil, part, false, answer(func(r *http.Request) (any, error) {
			req, err := body[BackupPolicy](r)
			switch {
			case err != nil:
				return nil, err
			case req.Keep < 1:
				return nil, Invalid("keep %d: at least the newest backup is kept", req.Keep)
			case req.Every < 0:
				return nil, Invalid("every %s is negative: say 0 for no backups by themselves", req.Every)
			}
			return req, p.SetPolicy(r.Context(), req)
		})},
	}
}

func fileRoutes(p BackupFiles) []route {
	const part = "backup files"
	return []route{
		{http.MethodGet, pathBackups + "/{id}/file", p != nil, part, true, func(w http.ResponseWriter, r *http.Request) {
			file, size, err := p.Open(r.Context(), r.PathValue("id"))
			if err != nil {
				refuse(w, err)
				return
			}
			sendFile(w, file, size)
		}},
		{http.MethodPost, pathRestore, p != nil, part, true, func(w http.ResponseWriter, r *http.Request) {
			// The file may still be coming while progress is already told.
			_ = http.NewResponseController(w).EnableFullDuplex()
			file := http.MaxBytesReader(w, r.Body, maxFile)
			stream(w, func(say Progress) (any, error) { return None{}, p.RestoreFrom(r.Context(), file, say) })
		}},
	}
}

func drillRoutes(p Drills) []route {
	return []route{{http.MethodPost, pathDrill, p != nil, "drills", true, told(func(r *http.Request, req DrillRequest, say Progress) (any, error) {
		return p.Drill(r.Context(), req, say)
	})}}
}

func nodeRoutes(p Nodes) []route {
	const part = "node operations"
	return []route{
		{http.MethodDelete, pathNodes + "/{id}", p != nil, part, false, done(func(ctx context.Context, name string) error { return p.Remove(ctx, name) })},
		{http.MethodPost, pathNodes + "/{id}/fence", p != nil, part, false, done(func(ctx context.Context, name string) error { return p.Fence(ctx, name) })},
		{http.MethodPost, pathNodes + "/{id}/unfence", p != nil, part, false, done(func(ctx context.Context, name string) error { return p.Unfence(ctx, name) })},
		{http.MethodPost, pathLeave, p != nil, part, true, told(func(r *http.Request, req LeaveRequest, say Progress) (any, error) {
			return None{}, p.Leave(r.Context(), req, say)
		})},
	}
}

func keyRoutes(p Keys) []route {
	const part = "key rotation"
	return []route{
		{http.MethodPost, pathRotateCA, p != nil, part, true, told(func(r *http.Request, _ None, say Progress) (any, error) {
			return None{}, p.RotateCA(r.Context(), say)
		})},
		{http.MethodPost, pathRotateGossip, p != nil, part, true, told(func(r *http.Request, _ None, say Progress) (any, error) {
			return None{}, p.RotateGossipKey(r.Context(), say)
		})},
	}
}

// LongRunning returns what tells requests of the extension API that may take longer than a minute,
// or stream, from all others: whoever serves the Handler must not time them out or buffer them.
func LongRunning() func(*http.Request) bool {
	mux := http.NewServeMux()
	for _, r := range routes(Backend{}) {
		if r.long {
			mux.Handle(r.method+" "+r.path, http.NotFoundHandler())
		}
	}
	return func(r *http.Request) bool {
		if !strings.HasPrefix(r.URL.Path, Prefix) {
			return false
		}
		_, pattern := mux.Handler(r)
		return pattern != ""
	}
}
