package logs

import (
	"log/slog"
	"os"

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"
)

// Levels are the levels a person can ask for, by name.
func Levels() map[string]slog.Level {
	return map[string]slog.Level{
		"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError,
	}
}

// New returns the node's log on standard error and leads upstream's klog into it. Upstream's
// information messages are our debug messages: they tell of its insides, not of the node.
func New(level string) *slog.Logger {
	handler := retries{slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: Levels()[level]})}
	log := slog.New(handler)
	klog.SetLoggerWithOptions(logr.FromSlogHandler(quieter{handler.WithAttrs([]slog.Attr{slog.String("part", "kubernetes")})}),
		klog.ContextualLogger(true))
	klog.OsExit = ends(log, os.Exit)
	return log
}
