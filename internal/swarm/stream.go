package swarm

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"
)

const (
	heartbeat  = 3 * time.Second  // a line at least so often
	silence    = 15 * time.Second // after which the client gives a stream up
	lineStuck  = 10 * time.Second // a client that reads nothing for so long is gone
	jsonLines  = "application/x-ndjson"
	cutOffHint = "the operation may still be going on: look at its status before trying again"
)

// Event is one line of a stream: progress (Message), a sign of life (nothing), or the last one
// (Result, or Error with its Code).
type Event struct {
	Message string          `json:"message,omitempty"`
	Result  json.RawMessage `json:"result,omitempty"`
	Error   string          `json:"error,omitempty"`
	Code    int             `json:"code,omitempty"`
}

// lines writes events. Its header goes out with the first line: what is refused before that is
// refused with a status code.
type lines struct {
	mu      sync.Mutex
	w       http.ResponseWriter
	control *http.ResponseController
	started bool
	ended   bool // the operation is over, or the client gone
}

// stream runs an operation and streams what it says.
func stream(w http.ResponseWriter, run func(Progress) (any, error)) {
	l := &lines{w: w, control: http.NewResponseController(w)}
	stop, alive := make(chan struct{}), sync.WaitGroup{}
	alive.Go(func() {
		beat := time.NewTicker(heartbeat)
		defer beat.Stop()
		for {
			select {
			case <-beat.C:
				l.send(Event{})
			case <-stop:
				return
			}
		}
	})
	end := func() { close(stop); alive.Wait() }
	v, err := func() (any, error) {
		defer end() // also when run panics: the server must not be left with a writer that is gone
		return run(func(format string, args ...any) {
			l.send(Event{Message: line(fmt.Errorf(format, args...))})
		})
	}()
	l.finish(v, err)
}

func (l *lines) send(e Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.write(e)
}

func (l *lines) finish(v any, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil && !l.started {
		l.ended = true
		refuse(l.w, err)
		return
	}
	e := Event{}
	if err == nil {
		e.Result, err = json.Marshal(v)
	}
	if err != nil {
		e = Event{Error: line(err), Code: Code(err)}
	}
	l.write(e)
	l.ended = true
}

func (l *lines) write(e Event) {
	if l.ended {
		return
	}
	if !l.started {
		l.started = true
		l.w.Header().Set("Content-Type", jsonLines)
		l.w.WriteHeader(http.StatusOK)
	}
	data, err := json.Marshal(e)
	if err == nil {
		_ = l.control.SetWriteDeadline(time.Now().Add(lineStuck)) // where it is not supported the server has its own
		_, err = l.w.Write(append(data, '\n'))
	}
	if err == nil {
		if err = l.control.Flush(); errors.Is(err, http.ErrNotSupported) {
			err = nil
		}
	}
	l.ended = err != nil
}
