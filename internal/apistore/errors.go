package apistore

import (
	"context"
	"errors"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/storage"

	"github.com/podman-swarm/podman-swarm/internal/state"
)

// ReasonInsufficientStorage is the status reason of a write that was refused because the disk is
// full. Its code is 507.
const ReasonInsufficientStorage metav1.StatusReason = "InsufficientStorage"

// staleWarning comes with what is read while there is no leader.
const staleWarning = "there is no leader now, so this is what this node knows; it may be out of date"

// The texts of upstream's etcd3 store: clients have been seen to match on them.
const (
	listExpired     = "The resourceVersion for the provided list is too old."
	watchExpired    = "The resourceVersion for the provided watch is too old."
	continueExpired = "The provided continue parameter is too old to display a consistent list result. " +
		"You can start a new list without the continue parameter."
	inconsistentContinue = "The provided continue parameter is too old to display a consistent list result. " +
		"You can start a new list without the continue parameter, or use the continue token in this response to " +
		"retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - " +
		"objects that were created, modified, or deleted between the time the first chunk was returned " +
		"and now may show up in the list."
)

// stateError tells a user what an error of the store means for the request.
func stateError(err error) error {
	switch {
	case errors.Is(err, state.ErrNoSpace):
		return &apierrors.StatusError{ErrStatus: metav1.Status{
			Status:  metav1.StatusFailure,
			Code:    http.StatusInsufficientStorage,
			Reason:  ReasonInsufficientStorage,
			Message: "disk full: writes are refused until there is room; reads go on (" + err.Error() + ")",
		}}
	case errors.Is(err, state.ErrNoLeader):
		return apierrors.NewServiceUnavailable(err.Error() + "; reads go on from what this node knows")
	case errors.Is(err, context.DeadlineExceeded):
		// 504 without Retry-After: clients must not repeat it by themselves.
		return apierrors.NewTimeoutError("the leader did not answer before the request's deadline; the write may have happened", 0)
	case errors.Is(err, state.ErrClosed):
		return apierrors.NewServiceUnavailable("this node is shutting down")
	}
	return err
}

// readError is stateError for a read. Clients repeat it by themselves; a write they must not,
// because it may have happened.
func readError(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		err = apierrors.NewServiceUnavailable("this node could not learn in time what is newest: the leader did not answer, or the node is far behind")
	}
	err = stateError(err)
	var status *apierrors.StatusError
	if errors.As(err, &status) && apierrors.IsServiceUnavailable(status) {
		status.ErrStatus.Details = &metav1.StatusDetails{RetryAfterSeconds: 1}
	}
	return err
}

// expiredList is the answer to a list at a revision that is no longer retained. A continued list
// is offered a token to go on with at the newest revision, as upstream does.
func expiredList(continueKey, prefix string) error {
	if continueKey == "" {
		return apierrors.NewResourceExpired(listExpired)
	}
	token, err := storage.EncodeContinue(continueKey, prefix, -1)
	if err != nil {
		return apierrors.NewResourceExpired(continueExpired)
	}
	expired := apierrors.NewResourceExpired(inconsistentContinue)
	expired.ErrStatus.Continue = token
	return expired
}

// watchStatus is the object of the ERROR event that ends a watch.
func watchStatus(err error) *metav1.Status {
	var deleted *corruptDeletedError
	var known apierrors.APIStatus
	switch {
	case errors.Is(err, state.ErrCompacted), errors.Is(err, state.ErrFuture):
		known = apierrors.NewResourceExpired(watchExpired)
	case errors.As(err, &deleted):
		return &metav1.Status{
			Status:  metav1.StatusFailure,
			Code:    http.StatusInternalServerError,
			Reason:  metav1.StatusReasonStoreReadError,
			Message: deleted.Error(),
		}
	case !errors.As(stateError(err), &known):
		known = apierrors.NewInternalError(err)
	}
	status := known.Status()
	return &status
}
