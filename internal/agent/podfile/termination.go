package podfile

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Upstream's limits of a termination message.
const (
	maxMessage      = 4096
	maxMessageLines = 80
	maxLogMessage   = 2048
)

// Termination returns the termination message of an ended container: the end of the file that was
// mounted at its terminationMessagePath, or by policy the end of its log.
func Termination(c *corev1.Container, file, log string, failed bool) string {
	if c.TerminationMessagePath != "" {
		data, err := tail(file, maxMessage)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Sprintf("Error on reading termination log %s: %v", file, err)
		}
		if len(data) > 0 {
			return string(data)
		}
	}
	if !failed || c.TerminationMessagePolicy != corev1.TerminationMessageFallbackToLogsOnError {
		return ""
	}
	// A line of the log carries some 40 bytes of time stamp and stream name.
	data, err := tail(log, maxLogMessage+maxMessageLines*64)
	if err != nil {
		return fmt.Sprintf("Error on reading termination message from logs: %v", err)
	}
	return logText(string(data))
}

// logText strips the CRI fields off the last lines of a log.
func logText(data string) string {
	lines := strings.SplitAfter(data, "\n")
	if n := len(lines); n > maxMessageLines {
		lines = lines[n-maxMessageLines-1:]
	}
	var b strings.Builder
	for _, l := range lines {
		// TIME STREAM TAG TEXT; a line cut at its beginning has no such head and is left out.
		f := strings.SplitN(l, " ", 4)
		if len(f) < 4 || (f[1] != "stdout" && f[1] != "stderr") {
			continue
		}
		text := f[3]
		if strings.HasPrefix(f[2], "P") {
			text = strings.TrimSuffix(text, "\n")
		}
		b.WriteString(text)
	}
	s := b.String()
	if len(s) > maxLogMessage {
		s = s[len(s)-maxLogMessage:]
	}
	return s
}

// tail reads at most the last n bytes of a file.
func tail(path string, n int64) ([]byte, error) {
	f, err := os.Open(path) //nolint:gosec // a path of our own making
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	if st.Size() > n {
		if _, err := f.Seek(-n, io.SeekEnd); err != nil {
			return nil, err
		}
	}
	return io.ReadAll(io.LimitReader(f, n))
}
