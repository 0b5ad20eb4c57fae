// Package swarm is the language of the extension API /swarm/v1: what Kubernetes has no word for.
//
// It holds the JSON types, a small client over somebody else's *http.Client, and the Handler that
// turns requests into calls of a Backend. Nothing here knows how a swarm works: the node supplies
// the Backend, and serves the Handler behind the API server's authentication and authorization.
//
// Answers are JSON objects, lists are {"items": [...]}, errors are {"error": "one line"} with a
// proper status code. Operations that take long answer with a stream of JSON lines (see Event): a
// line of progress now and then, an empty line as a sign of life, and exactly one last line with
// the result or the error. A stream without a last line was cut off, and its client says so.
package swarm
