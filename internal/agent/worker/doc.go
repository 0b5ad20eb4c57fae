// Package worker runs one pod: it observes the pod's containers, plans (package plan), acts, and
// tells the API when something changed. It blocks where the pod has to wait.
package worker
