// Package stored reads objects as the API server keeps them in the store.
package stored
