// Command hello is the demo of the README: it serves one page that says which pod answered.
package main

import (
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

const page = `<!doctype html>
<title>{{.Greeting}}</title>
<h1>{{.Greeting}}</h1>
<p>Pod {{.Pod}} on node {{.Node}} answered at {{.Now}}.</p>
`

func main() {
	if err := run(); err != nil {
		slog.Error("hello stopped", "err", err)
		os.Exit(1)
	}
}

func run() error {
	tmpl, err := template.New("page").Parse(page)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		err := tmpl.Execute(w, map[string]string{
			"Greeting": os.Getenv("GREETING"),
			"Pod":      os.Getenv("POD_NAME"),
			"Node":     os.Getenv("NODE_NAME"),
			"Now":      time.Now().UTC().Format(time.RFC3339),
		})
		if err != nil {
			slog.Warn("write page", "err", err)
		}
	})
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprintln(w, "ok") })
	server := &http.Server{Addr: ":8080", Handler: mux, ReadHeaderTimeout: 5 * time.Second}

	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		<-stop
		_ = server.Close()
	}()
	slog.Info("hello listens", "addr", server.Addr)
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
