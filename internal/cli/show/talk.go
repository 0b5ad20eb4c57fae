package show

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"

	"k8s.io/kubectl/pkg/util/term"

	"github.com/podman-swarm/podman-swarm/internal/swarm"
)

// Progress returns what prints lines of progress, each with the time since now, beside the answer.
func (p *Printer) Progress() func(string) {
	start := p.Now()
	return func(line string) {
		_, _ = fmt.Fprintf(p.Err, "%7s  %s\n", short(swarm.Duration(p.Now().Sub(start))), line)
	}
}

// ErrNo is returned when a person decided otherwise.
var ErrNo = errors.New("nothing was done")

// Person is somebody who can be asked.
type Person struct {
	In  io.Reader
	Out io.Writer
	Yes bool // --yes: everything was answered already
	At  func() bool
}

// AtTerminal tells whether a person types into in.
func AtTerminal(in io.Reader) func() bool { return term.TTY{In: in}.IsTerminalIn }

// Agree says what will happen and asks whether it shall. Where nobody can be asked it refuses.
func (p Person) Agree(what string) error {
	if p.Yes {
		return nil
	}
	if !p.At() {
		return fmt.Errorf("%s Say --yes to go on", what)
	}
	if _, err := fmt.Fprintf(p.Out, "%s\nContinue? [y/N] ", what); err != nil {
		return fmt.Errorf("ask: %w", err)
	}
	line, err := bufio.NewReader(p.In).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read answer: %w", err)
	}
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return nil
	}
	return ErrNo
}
