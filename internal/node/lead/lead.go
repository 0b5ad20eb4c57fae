package lead

import "context"

// Leadership comes and goes; *state.Store has it.
type Leadership interface {
	// Leads tells whether this replica leads. The channel closes at the next change.
	Leads() (bool, <-chan struct{})
}

// While runs what only one node may do, as long as this one leads: it begins when leadership
// comes, and has ended before it is given away on purpose. After an error it does not begin again.
func While(ctx context.Context, l Leadership, duty func(context.Context) error) error {
	for ctx.Err() == nil {
		leads, changed := l.Leads()
		if leads {
			if err := term(ctx, l, duty); err != nil {
				return err
			}
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
	return nil
}

// term runs the duty until leadership goes or ctx ends.
func term(ctx context.Context, l Leadership, duty func(context.Context) error) error {
	office, end := context.WithCancel(ctx)
	defer end()
	done := make(chan error, 1)
	go func() { done <- duty(office) }()
	for {
		leads, changed := l.Leads()
		if !leads {
			end()
			return <-done
		}
		select {
		case err := <-done:
			return err
		case <-changed:
		}
	}
}
