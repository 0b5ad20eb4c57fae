// Package call is how replicas ask each other for something: the formats of requests and answers.
// Every request names the lineage it is meant for, since revisions of two lineages are not
// comparable.
package call
