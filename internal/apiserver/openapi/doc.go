// Package openapi keeps OpenAPI documents out of the memory of the process that serves them.
//
// Building the documents of the built-in APIs takes 250 MB for some seconds, and keeping them 45.
// So a child process writes them to disk, gzipped, when they are first asked for, once per
// binary (Write); Docs streams the files. Documents of custom resources are small and change at
// run time: they are built for each request. In the one v2 document both meet: its JSON is kept
// in pieces between which members are inserted, its protobuf is merged by appending.
package openapi
