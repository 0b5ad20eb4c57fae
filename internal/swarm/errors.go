package swarm

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// Error is a refusal with the HTTP status that carries it. A Backend returns one of the errors made
// below; any other error is a 500. The client returns it as it was sent.
type Error struct {
	Code    int
	Message string
}

func (e *Error) Error() string { return e.Message }

// Invalid says that the request makes no sense.
func Invalid(format string, args ...any) error { return refusal(http.StatusBadRequest, format, args) }

// Forbidden says that the caller may not.
func Forbidden(format string, args ...any) error { return refusal(http.StatusForbidden, format, args) }

// NotFound says that what the request names does not exist.
func NotFound(format string, args ...any) error { return refusal(http.StatusNotFound, format, args) }

// Refused says that the swarm is not in a state that allows it; force, waiting or another order may help.
func Refused(format string, args ...any) error { return refusal(http.StatusConflict, format, args) }

// Unavailable says that this node cannot do it now (no leader, a peer that does not answer).
func Unavailable(format string, args ...any) error {
	return refusal(http.StatusServiceUnavailable, format, args)
}

// Code returns the status an error is answered with.
func Code(err error) int {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return http.StatusInternalServerError
}

func refusal(code int, format string, args []any) error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// line makes one line of an error.
func line(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }

type errorBody struct {
	Error string `json:"error"`
}
