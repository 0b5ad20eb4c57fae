package peers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/podman-swarm/podman-swarm/internal/wire"
)

// fileProto carries one file to another node. The connection begins with one line, the file's name,
// answered by one line, "+SIZE" or "-" and why not; the file's SIZE bytes follow.
const fileProto = "psw-file/1"

// Fetch opens a file of another node and tells its size in bytes. Reading it fails with
// io.ErrUnexpectedEOF when it ends early, and with ctx.
func (p *Peers) Fetch(ctx context.Context, node, name string) (io.ReadCloser, int64, error) {
	c, answer, err := p.begin(ctx, node, fileProto, name)
	if err != nil {
		return nil, 0, fmt.Errorf("node %s: %w", node, err)
	}
	size, err := fileAnswer(answer)
	if err != nil {
		_ = c.Close()
		return nil, 0, fmt.Errorf("node %s: %w", node, err)
	}
	return &fetched{from: c, left: size, stop: context.AfterFunc(ctx, func() { _ = c.Close() })}, size, nil
}

func fileAnswer(line string) (size int64, err error) {
	if why, refused := strings.CutPrefix(line, "-"); refused {
		return 0, AnswerError(why)
	}
	digits, ok := strings.CutPrefix(line, "+")
	n, err := strconv.ParseUint(digits, 10, 63)
	if !ok || err != nil {
		return 0, fmt.Errorf("%q is no answer to a question for a file", line)
	}
	return int64(n), nil //nolint:gosec // 63 bits
}

// fetched is a file that another node sends.
type fetched struct {
	from *wire.Conn
	left int64
	stop func() bool
}

// Read implements io.Reader.
func (f *fetched) Read(b []byte) (int, error) {
	if f.left == 0 {
		return 0, io.EOF
	}
	n, err := f.from.Read(b[:min(int64(len(b)), f.left)])
	f.left -= int64(n)
	if errors.Is(err, io.EOF) && f.left > 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// Close implements io.Closer.
func (f *fetched) Close() error {
	f.stop()
	return f.from.Close()
}

// AnswerFetches has other nodes fetch files of this node: what open knows by name, and its size.
func (p *Peers) AnswerFetches(open func(ctx context.Context, name string) (io.ReadCloser, int64, error)) {
	p.Wire.Handle(fileProto, func(ctx context.Context, c *wire.Conn) {
		_ = c.SetReadDeadline(time.Now().Add(dialTimeout))
		name, err := readLine(c)
		if err != nil {
			return
		}
		file, size, err := open(ctx, name)
		if err != nil {
			_, _ = fmt.Fprintln(c, "-"+oneLine(err))
			return
		}
		defer file.Close()
		defer context.AfterFunc(ctx, func() { _ = c.Close() })()
		if _, err := fmt.Fprintf(c, "+%d\n", size); err == nil {
			_, _ = io.CopyN(c, file, size)
		}
	})
}

// oneLine makes one line of an error, short enough for readLine.
func oneLine(err error) string {
	line := strings.Join(strings.Fields(err.Error()), " ")
	return line[:min(len(line), maxLine-1)]
}
