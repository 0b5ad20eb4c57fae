package apistore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"

	"k8s.io/apimachinery/pkg/conversion"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/features"
	"k8s.io/apiserver/pkg/storage"
	utilfeature "k8s.io/apiserver/pkg/util/feature"

	"github.com/podman-swarm/podman-swarm/internal/state"
)

// origin is the state of a key that an update or a delete starts from.
type origin struct {
	obj   runtime.Object // nil only when it is unreadable and the caller expects that
	rev   uint64         // 0 = the key does not exist
	data  []byte         // serialized, decrypted
	stale bool           // must be rewritten even if nothing changes
	// current says that this was the newest state anywhere during the call, rather than the newest
	// here: what it says may be refused or skipped upon.
	current bool
}

// change is one GuaranteedUpdate or Delete. Suggestions by the caller (cachedExistingObject) are not
// used: local memory is as cheap and at least as new.
type change struct {
	*store
	key            string
	newObj         func() runtime.Object
	ignoreNotFound bool
	expectCorrupt  bool // only an unreadable object is wanted
}

func (s *store) newChange(key string, out runtime.Object) (*change, error) {
	key, err := s.prepareKey(key, false)
	if err != nil {
		return nil, err
	}
	v, err := conversion.EnforcePtr(out)
	if err != nil {
		return nil, fmt.Errorf("unable to convert output object to pointer: %w", err)
	}
	newObj := func() runtime.Object { return reflect.New(v.Type()).Interface().(runtime.Object) }
	if u, ok := out.(runtime.Unstructured); ok {
		newObj = func() runtime.Object { return u.NewEmptyInstance() }
	}
	return &change{store: s, key: key, newObj: newObj}, nil
}

// start reads the key from local memory, and with a barrier when that cannot be worked with.
func (c *change) start(ctx context.Context) (*origin, error) {
	entry, _ := c.replica.View().Get(c.key)
	if o, err := c.origin(ctx, entry); err == nil {
		return o, nil
	}
	return c.refresh(ctx, nil)
}

// refresh returns the newest state: o itself, now known to be current, when the key has not been
// written since.
func (c *change) refresh(ctx context.Context, o *origin) (*origin, error) {
	if o != nil && o.current {
		return o, nil
	}
	if err := c.barrier(ctx); err != nil {
		return nil, err
	}
	entry, _ := c.replica.View().Get(c.key)
	if o == nil || o.rev != revision(entry) {
		var err error
		if o, err = c.origin(ctx, entry); err != nil {
			return nil, err
		}
	}
	o.current = true
	return o, nil
}

// revision of an entry, 0 when there is none.
func revision(e *state.Entry) uint64 {
	if e == nil {
		return 0
	}
	return e.ModRevision
}

// afterConflict starts again from the entry that a refused write found.
func (c *change) afterConflict(ctx context.Context, standing *state.Entry) (*origin, error) {
	o, err := c.origin(ctx, standing)
	if err != nil {
		return nil, err
	}
	o.current = true
	return o, nil
}

// retry returns a newer state to try again with, or cause when o already was the newest.
func (c *change) retry(ctx context.Context, o *origin, cause error) (*origin, error) {
	fresh, err := c.refresh(ctx, o)
	if err == nil && fresh == o {
		err = cause
	}
	return fresh, err
}

// origin decodes what is stored; a nil entry is a key that does not exist.
func (c *change) origin(ctx context.Context, entry *state.Entry) (*origin, error) {
	o := &origin{obj: c.newObj()}
	if entry == nil {
		if !c.ignoreNotFound {
			return nil, storage.NewKeyNotFoundError(c.key, 0)
		}
		return o, runtime.SetZeroValue(o.obj)
	}
	o.rev = entry.ModRevision
	var err error
	if o.data, o.stale, err = c.coder.open(ctx, c.key, entry.Value); err != nil {
		if c.expectCorrupt {
			return &origin{rev: o.rev, stale: true}, nil
		}
		return nil, storage.NewInternalError(err)
	}
	if err := c.coder.decode(o.data, o.rev, o.obj); err != nil {
		if c.expectCorrupt {
			o.obj = nil
			return o, nil
		}
		return nil, err
	}
	if c.expectCorrupt {
		return nil, storage.NewInvalidObjError(c.key,
			"unsafe deletion is not allowed because the object is decodable from storage")
	}
	return o, nil
}

// GuaranteedUpdate implements storage.Interface.
func (s *store) GuaranteedUpdate(
	ctx context.Context, key string, destination runtime.Object, ignoreNotFound bool,
	preconditions *storage.Preconditions, tryUpdate storage.UpdateFunc, _ runtime.Object,
) error {
	c, err := s.newChange(key, destination)
	if err != nil {
		return err
	}
	c.ignoreNotFound = ignoreNotFound
	o, err := c.start(ctx)
	for {
		if err != nil {
			return err
		}
		data, ttl, failed := c.compute(o, preconditions, tryUpdate)
		if failed != nil {
			o, err = c.retry(ctx, o, failed)
			continue
		}
		if o.rev != 0 && !o.stale && bytes.Equal(data, o.data) {
			unchanged := o
			if o, err = c.refresh(ctx, o); err == nil && o == unchanged {
				return s.coder.decode(o.data, o.rev, destination)
			}
			continue
		}
		res, failed := s.put(ctx, c.key, data, putOptions{expect: o.rev, ttl: ttl})
		switch {
		case failed == nil:
			return s.coder.decode(data, res.Revision, destination)
		case !errors.Is(failed, state.ErrConflict):
			return failed
		}
		o, err = c.afterConflict(ctx, res.Current)
	}
}

// compute runs the caller's function on o and returns what is to be stored.
func (c *change) compute(o *origin, pre *storage.Preconditions, try storage.UpdateFunc) ([]byte, uint64, error) {
	if err := pre.Check(c.key, o.obj); err != nil {
		return nil, 0, err
	}
	ret, ttl, err := try(o.obj, storage.ResponseMeta{ResourceVersion: o.rev})
	if err != nil {
		return nil, 0, err
	}
	data, err := c.coder.encode(ret)
	if err != nil || ttl == nil {
		return data, 0, err
	}
	return data, *ttl, nil
}

// Delete implements storage.Interface.
func (s *store) Delete(
	ctx context.Context, key string, out runtime.Object, preconditions *storage.Preconditions,
	validateDeletion storage.ValidateObjectFunc, _ runtime.Object, opts storage.DeleteOptions,
) error {
	c, err := s.newChange(key, out)
	if err != nil {
		return err
	}
	c.expectCorrupt = opts.ExpectTransformOrDecodeError &&
		utilfeature.DefaultFeatureGate.Enabled(features.AllowUnsafeMalformedObjectDeletion)
	o, err := c.start(ctx)
	for {
		if err != nil {
			return err
		}
		failed := preconditions.Check(c.key, o.obj)
		if failed == nil {
			failed = validateDeletion(ctx, o.obj)
		}
		if failed != nil {
			o, err = c.retry(ctx, o, failed)
			continue
		}
		res, failed := s.apply(ctx, state.Write{Key: c.key, Delete: true, Expect: o.rev})
		switch {
		case failed == nil && c.expectCorrupt:
			return nil
		case failed == nil:
			return s.coder.decode(o.data, res.Revision, out)
		case !errors.Is(failed, state.ErrConflict):
			return failed
		}
		o, err = c.afterConflict(ctx, res.Current)
	}
}
