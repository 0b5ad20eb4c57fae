package apistore

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/conversion"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/value"
)

// versioner puts revisions into objects as resourceVersion.
func versioner() storage.APIObjectVersioner { return storage.APIObjectVersioner{} }

// keyContext authenticates a stored value with the key it is stored under, so that an encrypted
// value copied to another key does not decrypt.
type keyContext string

// AuthenticatedData implements value.Context.
func (k keyContext) AuthenticatedData() []byte { return []byte(k) }

var _ value.Context = keyContext("")

// coder turns objects into stored bytes and back: codec, then transformer.
type coder struct {
	codec       runtime.Codec
	transformer value.Transformer
	markCorrupt bool
}

// encode returns obj's serialized form before encryption.
func (c *coder) encode(obj runtime.Object) ([]byte, error) {
	if err := versioner().PrepareObjectForStorage(obj); err != nil {
		return nil, fmt.Errorf("PrepareObjectForStorage failed: %w", err)
	}
	return runtime.Encode(c.codec, obj)
}

// seal makes plain fit to be stored under key.
func (c *coder) seal(ctx context.Context, key string, plain []byte) ([]byte, error) {
	sealed, err := c.transformer.TransformToStorage(ctx, plain, keyContext(key))
	if err != nil {
		return nil, storage.NewInternalError(err)
	}
	return sealed, nil
}

// open undoes seal. A stale value is readable but should be rewritten (its encryption key has been
// rotated).
func (c *coder) open(ctx context.Context, key string, sealed []byte) (plain []byte, stale bool, err error) {
	plain, stale, err = c.transformer.TransformFromStorage(ctx, sealed, keyContext(key))
	if err != nil && c.markCorrupt {
		err = &corruptError{err: err, what: untransformable}
	}
	return plain, stale, err
}

// decode reads plain into obj and sets its resourceVersion to rev.
func (c *coder) decode(plain []byte, rev uint64, into runtime.Object) error {
	if _, err := conversion.EnforcePtr(into); err != nil {
		return fmt.Errorf("unable to convert output object to pointer: %w", err)
	}
	if _, _, err := c.codec.Decode(plain, nil, into); err != nil {
		return c.undecodable(err, rev)
	}
	return setVersion(into, rev)
}

// decodeItem decodes plain into the given object where the codec allows that, and returns the
// object that holds the result.
func (c *coder) decodeItem(plain []byte, rev uint64, into runtime.Object) (runtime.Object, error) {
	obj, _, err := c.codec.Decode(plain, nil, into)
	if err != nil {
		return nil, c.undecodable(err, rev)
	}
	return obj, setVersion(obj, rev)
}

// decodeNew decodes plain into a new object of the codec's choice.
func (c *coder) decodeNew(plain []byte, rev uint64) (runtime.Object, error) {
	obj, err := runtime.Decode(c.codec, plain)
	if err != nil {
		return nil, err
	}
	return obj, setVersion(obj, rev)
}

func (c *coder) undecodable(err error, rev uint64) error {
	if c.markCorrupt {
		return &corruptError{err: err, what: undecodable, rev: rev}
	}
	return err
}

func setVersion(obj runtime.Object, rev uint64) error {
	if err := versioner().UpdateObject(obj, rev); err != nil {
		return fmt.Errorf("set resource version %d on %T: %w", rev, obj, err)
	}
	return nil
}
