// Package given reads what people give a node in files: a gossip key, and a certificate for the API.
// Every error is one line that names the flag.
package given
