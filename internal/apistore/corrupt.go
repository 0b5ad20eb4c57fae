package apistore

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/storage"
)

// maxCorrupt is how many unreadable objects one list names before it gives up.
const maxCorrupt = 100

const (
	untransformable = "data from the storage is not transformable"
	undecodable     = "object not decodable"
)

var errTooMany = errors.New("too many errors, the list is truncated")

// corruptError says that a stored value cannot be read. The registry offers unsafe deletion for
// such objects, and for no others.
type corruptError struct {
	err  error
	what string
	rev  uint64
}

func (e *corruptError) Error() string {
	return fmt.Sprintf("%s revision=%d: %v", e.what, e.rev, e.err)
}

func (e *corruptError) Unwrap() error { return e.err }

// corruptDeletedError is what a watch says when the last state of a deleted object is unreadable.
type corruptDeletedError struct{ err *corruptError }

func (e *corruptDeletedError) Error() string {
	return fmt.Sprintf("saw a DELETED event, but object data is corrupt - %v", e.err)
}

func (e *corruptDeletedError) Unwrap() error { return e.err }

// listErrors collects what went wrong with single items of a list.
type listErrors struct {
	collect bool // go on after unreadable items, to name them all
	corrupt []error
	abort   error // why the list ended early
}

// add reports whether the list must end.
func (l *listErrors) add(key string, err error) (stop bool) {
	var corrupt *corruptError
	if !l.collect || !errors.As(err, &corrupt) {
		l.abort = err
		return true
	}
	l.corrupt = append(l.corrupt, storage.NewCorruptObjError(key, corrupt))
	if len(l.corrupt) >= maxCorrupt {
		l.abort = errTooMany
	}
	return l.abort != nil
}

func (l *listErrors) err() error {
	if len(l.corrupt) > 0 {
		return &corruptListError{corrupt: l.corrupt, abort: l.abort}
	}
	return l.abort
}

// corruptListError names every unreadable object that a list met.
type corruptListError struct {
	corrupt []error
	abort   error
}

func (e *corruptListError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "unable to transform or decode %d objects: {\n", len(e.corrupt))
	for _, err := range e.corrupt {
		fmt.Fprintf(&b, "\t%v\n", err)
	}
	b.WriteString("}")
	if e.abort != nil {
		fmt.Fprintf(&b, ", aborted: %v", e.abort)
	}
	return b.String()
}

// status makes the error fit for the API: one cause per object.
func (e *corruptListError) status(resource schema.GroupResource) *apierrors.StatusError {
	causes := make([]metav1.StatusCause, 0, len(e.corrupt)+1)
	for _, err := range e.corrupt {
		cause := metav1.StatusCause{Type: metav1.CauseTypeUnexpectedServerResponse, Message: err.Error()}
		var named *storage.StorageError
		if errors.As(err, &named) {
			cause.Field = named.Key
		}
		causes = append(causes, cause)
	}
	switch {
	case errors.Is(e.abort, errTooMany):
		causes = append(causes, metav1.StatusCause{Type: metav1.CauseTypeTooMany, Message: errTooMany.Error()})
	case e.abort != nil:
		causes = append(causes, metav1.StatusCause{Type: metav1.CauseTypeUnexpectedServerResponse, Message: e.abort.Error()})
	}
	message := fmt.Sprintf("failed to read one or more %s from the storage: %v", resource, e.corrupt[0])
	if more := len(e.corrupt) - 1; more > 0 {
		message = fmt.Sprintf("%s (and %d more)", message, more)
	}
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status:  metav1.StatusFailure,
		Code:    http.StatusInternalServerError,
		Reason:  metav1.StatusReasonStoreReadError,
		Message: message,
		Details: &metav1.StatusDetails{Group: resource.Group, Kind: resource.Resource, Name: "list", Causes: causes},
	}}
}

// corruptReporter turns the errors of unreadable objects into what the registry's unsafe deletion
// looks for.
type corruptReporter struct {
	storage.Interface
	resource schema.GroupResource
}

func (r *corruptReporter) Get(ctx context.Context, key string, opts storage.GetOptions, out runtime.Object) error {
	err := r.Interface.Get(ctx, key, opts, out)
	var corrupt *corruptError
	if errors.As(err, &corrupt) {
		return storage.NewCorruptObjError(key, corrupt)
	}
	return err
}

func (r *corruptReporter) GetList(ctx context.Context, key string, opts storage.ListOptions, list runtime.Object) error {
	err := r.Interface.GetList(ctx, key, opts, list)
	var corrupt *corruptListError
	if errors.As(err, &corrupt) {
		return corrupt.status(r.resource)
	}
	return err
}
