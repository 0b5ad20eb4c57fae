package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

const envPrefix = "PODMAN_SWARM_"

// typedOnly are flags that must be said each time: no environment agrees to a destruction.
func typedOnly() []string { return []string{"yes", "force", "help", "version", "output", "no-headers"} }

func envName(flag string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// fillFromEnvironment sets each flag of c that was not given from PODMAN_SWARM_<FLAG>, so that a flag
// wins over the environment, and the environment over a configuration file. A variable that no
// command has a flag for is an error: it is a typing mistake that would be noticed too late.
func fillFromEnvironment(c *cobra.Command, environ []string) error {
	if c.Hidden { // children of the agent: they inherit what was meant for it
		return nil
	}
	known := knownFlags(c.Root())
	var errs []error
	for _, name := range sortedNames(environ) {
		value := lookup(environ, name)
		flag, ok := known[name]
		if !ok {
			errs = append(errs, fmt.Errorf("%s is set, but there is no such setting: did you mean %s?", name, nearest(name, known)))
			continue
		}
		f := c.Flags().Lookup(flag)
		switch {
		case slices.Contains(typedOnly(), flag):
			errs = append(errs, fmt.Errorf("%s is set, but --%s must be typed", name, flag))
		case f == nil || f.Changed || value == "":
		default:
			if err := c.Flags().Set(flag, value); err != nil {
				errs = append(errs, fmt.Errorf("%s=%s: %w", name, value, err))
			}
		}
	}
	return errors.Join(errs...)
}

// knownFlags maps the variables of all commands that people run to their flags.
func knownFlags(root *cobra.Command) map[string]string {
	known := map[string]string{}
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		add := func(f *pflag.Flag) { known[envName(f.Name)] = f.Name }
		c.LocalFlags().VisitAll(add)
		c.PersistentFlags().VisitAll(add)
		for _, sub := range c.Commands() {
			if !sub.Hidden {
				walk(sub)
			}
		}
	}
	walk(root)
	return known
}

func sortedNames(environ []string) []string {
	var names []string
	for _, e := range environ {
		if name, _, _ := strings.Cut(e, "="); strings.HasPrefix(name, envPrefix) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// lookup is os.Getenv for a given environment: the last one counts.
func lookup(environ []string, name string) string {
	for _, e := range slices.Backward(environ) {
		if value, ok := strings.CutPrefix(e, name+"="); ok {
			return value
		}
	}
	return ""
}

func isSet(environ []string, flag string) bool {
	return lookup(environ, envName(flag)) != ""
}

// nearest is the known name with the fewest changes to name, the first of several.
func nearest(name string, known map[string]string) string {
	best, fewest := "", len(name)+1
	for k, flag := range known {
		if slices.Contains(typedOnly(), flag) {
			continue
		}
		if d := distance(name, k); d < fewest || d == fewest && k < best {
			best, fewest = k, d
		}
	}
	return best
}

// distance counts the letters to insert, remove or replace (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
