// Package inproc lets clients in a process call the process's own API server.
//
// About ninety informers watch all the time. Over TLS and HTTP/2 their buffers and streams are
// measurable memory; here a watch is one goroutine and a short buffer. Nothing else is skipped:
// the handler is the whole server, so authentication, authorization, audit and fairness apply as
// for any request.
package inproc
