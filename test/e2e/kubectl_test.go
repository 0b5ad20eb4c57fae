//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const web = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 2
      containers:
      - name: web
        image: localhost/echo:1
        ports: [{containerPort: 8080, name: http}]
        env: [{name: VERSION, value: "%s"}]
        readinessProbe: {httpGet: {path: /readyz, port: http}, periodSeconds: 1}
`

// TestKubectlWorkload walks a Deployment through what people do to one every day.
func TestKubectlWorkload(t *testing.T) {
	ns := namespace(t)
	k := func(args ...string) string {
		t.Helper()
		return psctl(t, append([]string{"-n", ns}, args...)...)
	}
	apply := func(version string, args ...string) string {
		t.Helper()
		return psctlIn(t, fmt.Sprintf(web, version), append([]string{"-n", ns, "apply", "-f", "-"}, args...)...)
	}
	contains(t, "apply", apply("1"), "deployment.apps/web created")
	contains(t, "rollout status", k("rollout", "status", "deploy/web", "--timeout=60s"), "successfully rolled out")
	contains(t, "get -o wide", k("get", "pods", "-o", "wide"), "1/1", "Running", "10.244.")
	contains(t, "get deploy", k("get", "deploy", "web"), "2/2")
	shows(t, "describe", asking(t, "-n", ns, "describe", "deploy", "web"), "NewReplicaSet", "ScalingReplicaSet", "2 available")
	shows(t, "describe pod", asking(t, "-n", ns, "describe", "pods", "-l", "app=web"), "Container started", "Pulled", "Successfully assigned", "Ready", "podman://")
	contains(t, "diff", func() string {
		out, _, _ := machine.Psctl(t.Context(), fmt.Sprintf(web, "2"), "-n", ns, "diff", "-f", "-")
		return out
	}(), `-          value: "1"`, `+          value: "2"`)
	contains(t, "apply again", apply("2"), "configured")
	k("rollout", "status", "deploy/web", "--timeout=60s")
	contains(t, "history", k("rollout", "history", "deploy/web"), "1", "2")
	contains(t, "undo", k("rollout", "undo", "deploy/web"), "rolled back")
	k("rollout", "status", "deploy/web", "--timeout=60s")
	contains(t, "env after undo", k("get", "deploy", "web", "-o", "jsonpath={.spec.template.spec.containers[0].env[0].value}"), "1")
	contains(t, "server-side apply", apply("1", "--server-side", "--force-conflicts"), "serverside-applied")
	contains(t, "managed fields", k("get", "deploy", "web", "-o", "yaml", "--show-managed-fields"), "manager: kubectl")
	k("scale", "deploy/web", "--replicas=3")
	k("rollout", "status", "deploy/web", "--timeout=60s")
	k("label", "deploy/web", "tier=front")
	contains(t, "get by label", k("get", "deploy", "-l", "tier=front", "-o", "name"), "deployment.apps/web")
	k("annotate", "deploy/web", "note=x")
	k("patch", "deploy/web", "-p", `{"spec":{"template":{"spec":{"containers":[{"name":"web","env":[{"name":"EXTRA","value":"y"}]}]}}}}`)
	k("patch", "deploy/web", "--type=merge", "-p", `{"metadata":{"labels":{"merge":"yes"}}}`)
	k("patch", "deploy/web", "--type=json", "-p", `[{"op":"replace","path":"/spec/replicas","value":1}]`)
	contains(t, "patched", k("get", "deploy/web", "-o", "json"), `"EXTRA"`, `"merge": "yes"`, `"replicas": 1`)
	contains(t, "edit", editNote(t, ns), "edited")
	k("rollout", "status", "deploy/web", "--timeout=60s")
	contains(t, "expose", k("expose", "deploy/web", "--port=80", "--target-port=http"), "exposed")
	eventually(t, 20*time.Second, func() error {
		if out := k("get", "endpointslices", "-l", "kubernetes.io/service-name=web", "-o", "jsonpath={.items[*].endpoints[*].addresses[0]}"); !strings.HasPrefix(out, "10.244.") {
			return fmt.Errorf("endpoints: %q", out)
		}
		return nil
	})
	contains(t, "auth can-i", k("auth", "can-i", "delete", "pods"), "yes")
	shows(t, "events", asking(t, "-n", ns, "get", "events"), "Started", "Scheduled")
}

// editNote runs `kubectl edit` with an editor that changes one line.
func editNote(t *testing.T, ns string) string {
	t.Helper()
	inside, _ := machine.DataDir()
	out, errOut, err := machine.Run(t.Context(), "", "env", "KUBECONFIG="+inside+"/admin.kubeconfig", "KUBE_EDITOR=sed -i s/front/back/",
		machine.Client(), "-n", ns, "edit", "deploy/web")
	if err != nil {
		t.Fatalf("edit: %v %s%s", err, out, errOut)
	}
	return out
}

// TestKubectlDiscovery covers what needs OpenAPI and discovery documents.
func TestKubectlDiscovery(t *testing.T) {
	contains(t, "version", psctl(t, "version"), "Server Version: v1.37.2")
	contains(t, "explain", psctl(t, "explain", "deployment.spec.strategy.rollingUpdate"), "maxSurge", "maxUnavailable")
	contains(t, "api-resources", psctl(t, "api-resources"), "deployments", "cronjobs", "customresourcedefinitions", "priorityclasses", "networkpolicies")
	contains(t, "api-versions", psctl(t, "api-versions"), "apps/v1", "batch/v1", "rbac.authorization.k8s.io/v1")
	contains(t, "nodes", psctl(t, "get", "nodes", "-o", "wide"), "Ready", "podman://")
	contains(t, "kubernetes service", psctl(t, "get", "svc", "kubernetes", "-o", "wide"), "10.43.0.1")
	contains(t, "can-i --as", func() string {
		out, _, _ := machine.Psctl(t.Context(), "", "auth", "can-i", "list", "secrets", "--as=nobody")
		return out
	}(), "no")
	_, errOut, err := machine.Psctl(t.Context(), "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: Bad_Name}\nspec: {replicas: -1, selector: {}, template: {}}", "apply", "-f", "-")
	if err == nil {
		t.Error("an invalid manifest was accepted")
	}
	contains(t, "validation", errOut, "metadata.name: Invalid value", "spec.replicas: Invalid value")
}

// TestKubectlStreams covers logs, exec, attach, cp and port-forward.
func TestKubectlStreams(t *testing.T) {
	ns := namespace(t)
	k := func(args ...string) string {
		t.Helper()
		return psctl(t, append([]string{"-n", ns}, args...)...)
	}
	psctlIn(t, `
apiVersion: v1
kind: Pod
metadata: {name: shell}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: sh
    image: localhost/busybox:1
    command: [sh, -c, "echo one; echo two; echo three; httpd -p 8080 -h /tmp; trap 'exit 0' TERM; while read line; do echo $line; done; while :; do sleep 0.2; done"]
    stdin: true
`, "-n", ns, "apply", "-f", "-")
	k("wait", "--for=condition=Ready", "pod/shell", "--timeout=30s")
	shows(t, "logs", asking(t, "-n", ns, "logs", "shell"), "three\n")
	if got := k("logs", "shell"); got != "one\ntwo\nthree\n" {
		t.Errorf("logs = %q", got)
	}
	if got := k("logs", "shell", "--tail=1"); got != "three\n" {
		t.Errorf("logs --tail=1 = %q", got)
	}
	contains(t, "logs --timestamps", k("logs", "shell", "--timestamps"), "T", "Z one")
	if got := k("logs", "shell", "--since=1h"); !strings.Contains(got, "one") {
		t.Errorf("logs --since=1h = %q", got)
	}
	if got := k("exec", "shell", "--", "sh", "-c", "echo out; echo err >&2"); got != "out\n" {
		t.Errorf("exec = %q", got)
	}
	if got := psctlIn(t, "typed\n", "-n", ns, "exec", "-i", "shell", "--", "cat"); got != "typed\n" {
		t.Errorf("exec -i = %q", got)
	}
	_, errOut, err := machine.Psctl(t.Context(), "", "-n", ns, "exec", "shell", "--", "sh", "-c", "exit 7")
	if err == nil || !strings.Contains(errOut, "exit code 7") {
		t.Errorf("exec exit code: %v %q", err, errOut)
	}
	tty, _, err := machine.Run(t.Context(), "", "script", "-qec", kubectlLine("-n", ns, "exec", "-it", "shell", "--", "sh", "-c", "tty; stty size"), "/dev/null")
	if err != nil || !strings.Contains(tty, "/dev/") {
		t.Errorf("exec -it: %v %q", err, tty)
	}
	copyBothWays(t, ns)
	// The container goes on after its standard input ends, and so would attach.
	if _, _, err := machine.Run(t.Context(), "", "timeout", "5", "sh", "-c", "(echo attached; sleep 9) | "+kubectlLine("-n", ns, "attach", "-i", "shell")); err == nil {
		t.Error("attach ended by itself")
	}
	eventually(t, 10*time.Second, func() error {
		if got := k("logs", "shell", "--tail=1"); got != "attached\n" {
			return fmt.Errorf("logs after attach = %q", got)
		}
		return nil
	})
	k("exec", "shell", "--", "sh", "-c", "echo page >/tmp/index.html")
	page, errOut, err := machine.Run(t.Context(), "", "sh", "-c", kubectlLine("-n", ns, "port-forward", "pod/shell", "18080:8080")+` >/dev/null & p=$!
		for i in $(seq 100); do curl -fs http://127.0.0.1:18080/ && break; sleep 0.3; done; kill $p`)
	if err != nil && page == "" || page != "page\n" {
		t.Errorf("port-forward: %v %q %q", err, page, errOut)
	}
}

func kubectlLine(args ...string) string {
	inside, _ := machine.DataDir()
	for i, a := range args {
		args[i] = "'" + a + "'"
	}
	return "env KUBECONFIG=" + inside + "/admin.kubeconfig " + machine.Client() + " " + strings.Join(args, " ")
}

func copyBothWays(t *testing.T, ns string) {
	t.Helper()
	inside, outside := machine.DataDir()
	src, back := filepath.Join(outside, "cp-src"), filepath.Join(outside, "cp-back")
	want := strings.Repeat("copy me\n", 10000)
	if err := os.WriteFile(src, []byte(want), 0o644); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(src)
	defer os.Remove(back)
	psctl(t, "-n", ns, "cp", inside+"/cp-src", "shell:/tmp/copied")
	psctl(t, "-n", ns, "cp", "shell:/tmp/copied", inside+"/cp-back")
	got, err := os.ReadFile(back)
	if err != nil || string(got) != want {
		t.Errorf("cp there and back: %v, %d bytes, want %d", err, len(got), len(want))
	}
}

const widget = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: widgets, singular: widget, kind: Widget}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}, scale: {specReplicasPath: .spec.size, statusReplicasPath: .status.size}}
    additionalPrinterColumns: [{name: Size, type: integer, jsonPath: .spec.size}]
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            description: What the widget should be.
            properties:
              size: {type: integer, default: 3, description: How large it is.}
              color: {type: string}
            x-kubernetes-validations: [{rule: "self.size < 100", message: "size must be below 100"}]
          status: {type: object, properties: {size: {type: integer}}}
`

// TestKubectlCustomResources covers a CRD with defaults, CEL rules, columns and explain.
func TestKubectlCustomResources(t *testing.T) {
	ns := namespace(t)
	psctlIn(t, widget, "apply", "-f", "-")
	t.Cleanup(func() {
		machine.Psctl(background(), "", "delete", "crd", "widgets.example.com", "--wait=false")
	})
	psctl(t, "wait", "--for=condition=Established", "crd/widgets.example.com", "--timeout=20s")
	apply := func(spec string) (string, string, error) {
		return machine.Psctl(t.Context(), "apiVersion: example.com/v1\nkind: Widget\nmetadata: {name: w}\nspec: "+spec, "-n", ns, "apply", "-f", "-")
	}
	eventually(t, 20*time.Second, func() error { _, e, err := apply("{color: red}"); return wrap(err, e) })
	contains(t, "columns", psctl(t, "-n", ns, "get", "widgets"), "SIZE", "3")
	if _, errOut, err := apply("{size: 200}"); err == nil || !strings.Contains(errOut, "size must be below 100") {
		t.Errorf("CEL rule: %v %s", err, errOut)
	}
	psctl(t, "-n", ns, "scale", "widget/w", "--replicas=7")
	eventually(t, 30*time.Second, func() error {
		out, e, err := machine.Psctl(t.Context(), "", "explain", "widget.spec")
		if err == nil && !strings.Contains(out, "How large it is") {
			err = fmt.Errorf("explain: %s", out)
		}
		return wrap(err, e)
	})
}

// TestKubectlWorkloadKinds covers Job, CronJob, StatefulSet and DaemonSet.
func TestKubectlWorkloadKinds(t *testing.T) {
	ns := namespace(t)
	k := func(args ...string) string {
		t.Helper()
		return psctl(t, append([]string{"-n", ns}, args...)...)
	}
	psctlIn(t, `
apiVersion: batch/v1
kind: Job
metadata: {name: sum}
spec:
  completions: 3
  parallelism: 2
  template:
    spec:
      restartPolicy: Never
      containers: [{name: sum, image: "localhost/busybox:1", command: [sh, -c, "echo $((6*7))"]}]
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: tick}
spec:
  schedule: "* * * * *"
  jobTemplate:
    spec:
      template:
        spec:
          restartPolicy: OnFailure
          containers: [{name: tick, image: "localhost/busybox:1", command: ["true"]}]
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  replicas: 2
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: db, image: "localhost/pause:1"}]
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: every}
spec:
  selector: {matchLabels: {app: every}}
  template:
    metadata: {labels: {app: every}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: every, image: "localhost/pause:1"}]
`, "-n", ns, "apply", "-f", "-")
	k("wait", "--for=condition=Complete", "job/sum", "--timeout=60s")
	contains(t, "job logs", k("logs", "job/sum"), "42")
	k("rollout", "status", "sts/db", "--timeout=60s")
	contains(t, "ordered names", k("get", "pods", "-l", "app=db", "-o", "name"), "pod/db-0", "pod/db-1")
	k("rollout", "status", "ds/every", "--timeout=60s")
	eventually(t, 100*time.Second, func() error {
		if out := k("get", "jobs", "-o", "jsonpath={.items[?(@.metadata.ownerReferences)].status.succeeded}"); !strings.Contains(out, "1") {
			return fmt.Errorf("the CronJob has not run: %q", out)
		}
		return nil
	})
}

// TestKubectlDelete covers the three cascade modes.
func TestKubectlDelete(t *testing.T) {
	ns := namespace(t)
	k := func(args ...string) string {
		t.Helper()
		return psctl(t, append([]string{"-n", ns}, args...)...)
	}
	pods := func() int { return strings.Count(k("get", "pods", "-l", "app=web", "-o", "name"), "pod/") }
	for _, mode := range []string{"background", "foreground", "orphan"} {
		psctlIn(t, fmt.Sprintf(web, "1"), "-n", ns, "apply", "-f", "-")
		k("rollout", "status", "deploy/web", "--timeout=60s")
		k("delete", "deploy", "web", "--cascade="+mode, "--timeout=60s")
		if mode == "orphan" {
			if n := pods(); n != 2 {
				t.Errorf("%d pods after --cascade=orphan, want 2", n)
			}
			contains(t, "orphaned", k("get", "rs", "-l", "app=web", "-o", "name"), "replicaset")
			k("delete", "rs", "-l", "app=web", "--timeout=60s")
		}
		eventually(t, 30*time.Second, func() error {
			if n := pods(); n != 0 {
				return fmt.Errorf("%d pods left after --cascade=%s", n, mode)
			}
			return nil
		})
	}
}
