package peers

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"
)

// wordsProto carries short questions between nodes; answers are JSON, so that releases can be mixed.
const wordsProto = "psw-words/1"

// Words is what a node answers when it is asked how it is.
type Words struct {
	Node string `json:"node"`
	// Index is the newest log entry of its replica, Revision the newest write it has applied.
	Index    uint64 `json:"index"`
	Revision uint64 `json:"revision"`
	// Keys is the generation of the swarm's keys it uses.
	Keys uint64 `json:"keys"`
	// Issuer names the CA that issued its certificate, by its subject key.
	Issuer string `json:"issuer"`
}

// askTimeout bounds one question.
const askTimeout = 2 * time.Second

// Answers serves questions: by kind, what the argument is answered.
type Answers map[string]func(ctx context.Context, argument string) (any, error)

// AnswerError is why another node, which was reached, does not do or give what it was asked for.
type AnswerError string

func (e AnswerError) Error() string { return string(e) }

type question struct {
	Kind     string `json:"kind"`
	Argument string `json:"argument,omitempty"`
}

type reply struct {
	Error  string          `json:"error,omitempty"`
	Result json.RawMessage `json:"result,omitempty"`
}

// AnswerQuestions has this node answer.
func (p *Peers) AnswerQuestions(answers Answers) {
	p.Wire.Serve(wordsProto, func(ctx context.Context, _ string, request []byte) []byte {
		var r reply
		result, err := answers.to(ctx, request)
		if err == nil {
			r.Result, err = json.Marshal(result)
		}
		if err != nil {
			r.Error = err.Error()
		}
		data, err := json.Marshal(r)
		if err != nil {
			return nil // never: a text and checked JSON
		}
		return data
	})
}

func (a Answers) to(ctx context.Context, request []byte) (any, error) {
	var q question
	if err := json.Unmarshal(request, &q); err != nil {
		return nil, fmt.Errorf("read question: %w", err)
	}
	answer, ok := a[q.Kind]
	if !ok {
		return nil, fmt.Errorf("this release does not know the question %q", q.Kind)
	}
	return answer(ctx, q.Argument)
}

// Ask asks the node at an address, and decodes its answer into result.
func (p *Peers) Ask(ctx context.Context, addr, kind, argument string, result any) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	request, err := json.Marshal(question{Kind: kind, Argument: argument})
	if err != nil {
		return err
	}
	data, err := p.Wire.Call(ctx, addr, wordsProto, request)
	if err != nil {
		return err
	}
	var r reply
	if err := json.Unmarshal(data, &r); err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	if r.Error != "" {
		return AnswerError(r.Error)
	}
	return json.Unmarshal(r.Result, result)
}

// AskAll asks every living node at once and calls got, one at a time, for each that answered; it
// returns the names of those that did not.
func AskAll[T any](ctx context.Context, p *Peers, kind, argument string, got func(member Member, result T)) (silent []string) {
	var mu sync.Mutex
	var all sync.WaitGroup
	for _, m := range p.Members() {
		if !m.Alive() {
			continue
		}
		all.Go(func() {
			var result T
			err := p.Ask(ctx, m.Addr, kind, argument, &result)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				silent = append(silent, m.Name)
				return
			}
			got(m, result)
		})
	}
	all.Wait()
	return silent
}
