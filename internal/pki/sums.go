package pki

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// sumsName is the file with the SHA-256 of every original, in the format of sha256sum(1), and in its
// first line that of the others. It is written after the originals, while the journal still holds
// them: a crash in between leaves either no sums, in a directory that is being made, or a journal.
const sumsName = "sums"

// originals are the files that nothing else could be made from again, but by a backup or the other
// nodes: damage of one must be noticed before it does harm, and what it holds may still be a key.
func originals() []string {
	return []string{
		"ca.crt", "ca.key", nextKeyName, "front-proxy-ca.crt", "front-proxy-ca.key", "sa.key", "encryption.yaml", sharedName,
	}
}

// checkSums compares the originals with their sums; false: there are none yet.
func (a *Authority) checkSums() (bool, error) {
	data, err := os.ReadFile(a.path(sumsName))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read the sums of the keys: %w", err)
	}
	want, ok := parseSums(data)
	if !ok {
		return false, a.damaged(sumsName, "is damaged")
	}
	for _, name := range originals() {
		data, err := a.read(name)
		if err != nil {
			return false, err
		}
		switch have := sum(data); {
		case have == want[name]:
		case data == nil:
			return false, a.damaged(name, "is gone")
		case want[name] == "":
			return false, a.damaged(name, "is there, but was not written by this node")
		default:
			return false, a.damaged(name, "is damaged: it is not what was written")
		}
	}
	return true, nil
}

// wayBack is what to do about damaged keys.
const wayBack = "restore the whole directory from a backup, or reset this node and let it join its swarm again"

func (a *Authority) damaged(name, what string) error {
	return fmt.Errorf("key file %s %s; %s (if you know that the files are right, remove %s)", a.path(name), what, wayBack, a.path(sumsName))
}

// read returns nil for a file that is not there.
func (a *Authority) read(name string) ([]byte, error) {
	data, err := os.ReadFile(a.path(name))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("read keys: %w", err)
	case data == nil:
		return []byte{}, nil
	}
	return data, nil
}

// makeSums accepts the originals as they are.
func (a *Authority) makeSums() error {
	files := map[string][]byte{}
	for _, name := range originals() {
		var err error
		if files[name], err = a.read(name); err != nil {
			return err
		}
	}
	return WriteFile(a.path(sumsName), encodeSums(files))
}

func encodeSums(files map[string][]byte) []byte {
	var b strings.Builder
	for _, name := range originals() {
		if data := files[name]; data != nil {
			fmt.Fprintf(&b, "%s  %s\n", sum(data), name)
		}
	}
	return append(sumsHeader(b.String()), b.String()...)
}

func sumsHeader(lines string) []byte { return []byte("# " + sum([]byte(lines)) + "\n") }

// parseSums returns the sums by name; false when they are not as they were written.
func parseSums(data []byte) (map[string]string, bool) {
	head, lines, _ := strings.Cut(string(data), "\n")
	if head+"\n" != string(sumsHeader(lines)) {
		return nil, false
	}
	sums := map[string]string{}
	for line := range strings.Lines(lines) {
		s, name, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "  ")
		if !ok {
			return nil, false
		}
		sums[name] = s
	}
	return sums, true
}

// sum is the SHA-256 as text, "" of a file that is not there.
func sum(data []byte) string {
	if data == nil {
		return ""
	}
	return fmt.Sprintf("%x", sha256.Sum256(data))
}

// journalMark begins a journal with a checksum; one of an earlier release is the bare bundle.
const journalMark = "sha256 "

// encodeJournal is a bundle as it is kept while it is being written to the other files.
func encodeJournal(bundle []byte) []byte {
	return append([]byte(journalMark+sum(bundle)+"\n"), bundle...)
}

// decodeJournal reads what encodeJournal wrote.
func decodeJournal(data []byte) (*keyring, error) {
	if len(data) > 0 && data[0] != '{' {
		_, bundle, _ := strings.Cut(string(data), "\n")
		if string(encodeJournal([]byte(bundle))) != string(data) {
			return nil, errors.New("it is damaged")
		}
		data = []byte(bundle)
	}
	return decodeBundle(data)
}
