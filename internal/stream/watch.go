package stream

import (
	"log/slog"
	"path/filepath"
	"sync"

	"github.com/fsnotify/fsnotify"
)

// fileWatch tells followers that something happened in a directory. All of them share one inotify instance
// (a user has 128); it exists only while somebody follows.
type fileWatch struct {
	log *slog.Logger

	mu      sync.Mutex
	watcher *fsnotify.Watcher
	running sync.WaitGroup // one goroutine per watcher
	dirs    map[string]map[chan struct{}]bool
}

// add returns a channel that has something in it after changes in dir, and the end of it. The channel is nil
// when the kernel does not help; then the caller has to look by itself.
func (w *fileWatch) add(dir string) (changed <-chan struct{}, stop func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.watcher == nil {
		watcher, err := fsnotify.NewWatcher()
		if err != nil {
			w.log.Warn("followed logs are polled", "err", err)
			return nil, func() {}
		}
		w.watcher, w.dirs = watcher, map[string]map[chan struct{}]bool{}
		w.running.Go(func() { w.run(watcher) })
	}
	if w.dirs[dir] == nil {
		if err := w.watcher.Add(dir); err != nil {
			w.log.Warn("followed log is polled", "dir", dir, "err", err)
			w.endIfIdle()
			return nil, func() {}
		}
		w.dirs[dir] = map[chan struct{}]bool{}
	}
	c := make(chan struct{}, 1)
	c <- struct{}{} // what happened before
	w.dirs[dir][c] = true
	return c, func() { w.remove(dir, c) }
}

func (w *fileWatch) remove(dir string, c chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.dirs[dir], c)
	if len(w.dirs[dir]) == 0 && w.dirs[dir] != nil {
		delete(w.dirs, dir)
		_ = w.watcher.Remove(dir) // the directory may be gone, and the watch with it
	}
	w.endIfIdle()
}

// endIfIdle ends the watcher when nobody follows; the caller holds the lock.
func (w *fileWatch) endIfIdle() {
	if w.watcher != nil && len(w.dirs) == 0 {
		_ = w.watcher.Close() // there is nothing to be lost
		w.watcher = nil
	}
}

func (w *fileWatch) run(watcher *fsnotify.Watcher) {
	for {
		select {
		case e, ok := <-watcher.Events:
			if !ok {
				return
			}
			w.tell(filepath.Dir(e.Name))
		case err, ok := <-watcher.Errors:
			if !ok {
				return
			}
			w.log.Debug("watch logs", "err", err) // an overflow: everybody looks
			w.tell("")
		}
	}
}

// tell wakes the followers of a directory, or all.
func (w *fileWatch) tell(dir string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for d, followers := range w.dirs {
		if dir != "" && d != dir {
			continue
		}
		for c := range followers {
			select {
			case c <- struct{}{}:
			default: // has not looked yet
			}
		}
	}
}

// wait waits for all goroutines; followers must have stopped.
func (w *fileWatch) wait() { w.running.Wait() }
