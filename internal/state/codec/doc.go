// Package codec reads what the store writes to disk and sends between replicas: fields of binary
// formats, and their versions.
package codec
