package swarm

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

const (
	maxBody = 64 << 10 // of a request that is JSON
	maxFile = 1 << 30  // of an uploaded backup
)

// Handler serves the extension API. Who may call it is decided by whoever serves the Handler.
func Handler(b Backend) http.Handler {
	paths := map[string]map[string]http.HandlerFunc{}
	for _, r := range routes(b) {
		if paths[r.path] == nil {
			paths[r.path] = map[string]http.HandlerFunc{}
		}
		serve := r.serve
		if !r.have {
			serve = func(w http.ResponseWriter, _ *http.Request) {
				refuse(w, &Error{Code: http.StatusNotImplemented, Message: "this node has no " + r.part})
			}
		}
		paths[r.path][r.method] = serve
	}
	mux := http.NewServeMux()
	for path, methods := range paths {
		mux.HandleFunc(path, byMethod(methods))
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		refuse(w, NotFound("%s is not part of the extension API %s", r.URL.Path, strings.TrimSuffix(Prefix, "/")))
	})
	return mux
}

func byMethod(methods map[string]http.HandlerFunc) http.HandlerFunc {
	var allowed []string
	for m := range methods {
		allowed = append(allowed, m)
	}
	slices.Sort(allowed)
	return func(w http.ResponseWriter, r *http.Request) {
		serve, ok := methods[r.Method]
		if !ok {
			w.Header().Set("Allow", strings.Join(allowed, ", "))
			refuse(w, &Error{Code: http.StatusMethodNotAllowed, Message: r.Method + " is not possible here, only " + strings.Join(allowed, ", ")})
			return
		}
		serve(w, r)
	}
}

// answer serves what f returns.
func answer(f func(*http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v, err := f(r)
		if err != nil {
			refuse(w, err)
			return
		}
		write(w, http.StatusOK, v)
	}
}

// list serves what f returns as a List that is never null.
func list[T any](f func(*http.Request) ([]T, error)) http.HandlerFunc {
	return answer(func(r *http.Request) (any, error) {
		items, err := f(r)
		if items == nil {
			items = []T{}
		}
		return List[T]{Items: items}, err
	})
}

// done serves what is done to one thing and has no result.
func done(f func(ctx context.Context, id string) error) http.HandlerFunc {
	return answer(func(r *http.Request) (any, error) {
		if _, err := body[None](r); err != nil {
			return nil, err
		}
		return None{}, f(r.Context(), r.PathValue("id"))
	})
}

// told serves what takes long and tells its progress.
func told[T any](f func(r *http.Request, req T, say Progress) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		req, err := body[T](r)
		if err != nil {
			refuse(w, err)
			return
		}
		stream(w, func(say Progress) (any, error) { return f(r, req, say) })
	}
}

// body reads a request's JSON; no body is an empty object. A field this release does not know is
// refused: ignoring "dryRun" would be worse than saying no.
func body[T any](r *http.Request) (T, error) {
	var v T
	data, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	switch {
	case err != nil:
		return v, Invalid("read request: %s", line(err))
	case len(data) > maxBody:
		return v, &Error{Code: http.StatusRequestEntityTooLarge, Message: "the request is too large"}
	case len(data) == 0:
		return v, nil
	}
	d := json.NewDecoder(strings.NewReader(string(data)))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		return v, Invalid("request: %s", line(err))
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return v, Invalid("request: more than one JSON value")
	}
	return v, nil
}

func refuse(w http.ResponseWriter, err error) {
	code := Code(err)
	if errors.Is(err, context.DeadlineExceeded) && code == http.StatusInternalServerError {
		code = http.StatusGatewayTimeout
	}
	write(w, code, errorBody{Error: line(err)})
}

func write(w http.ResponseWriter, code int, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		code, data = http.StatusInternalServerError, []byte(`{"error":"the answer cannot be written as JSON"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(append(data, '\n')) // a client that went away needs no answer
}

// sendFile sends a file. The client learns its size first, and so notices when it is cut off.
func sendFile(w http.ResponseWriter, file io.ReadCloser, size int64) {
	defer file.Close()
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
	if _, err := io.CopyN(w, file, size); err != nil {
		panic(http.ErrAbortHandler)
	}
}
