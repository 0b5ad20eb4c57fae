# Every habit of this project is one word. `make` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help

export CGO_ENABLED := 0
export GOFLAGS := -trimpath
export GOTOOLCHAIN := local

K8S     := v1.37.2
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
COMMIT  := $(shell git rev-parse HEAD 2>/dev/null || echo unknown)
KV      := k8s.io/component-base/version
LDFLAGS := -s -w \
  -X github.com/podman-swarm/podman-swarm/internal/version.release=$(VERSION) \
  -X $(KV).gitVersion=$(K8S)+swarm -X $(KV).gitMajor=1 -X $(KV).gitMinor=37 \
  -X $(KV).gitCommit=$(COMMIT) -X $(KV).gitTreeState=clean
LINT_VERSION := v2.15.0
LINT := .tools/bin/golangci-lint-$(LINT_VERSION)

.PHONY: help
help: ## list the targets
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-14s %s\n",$$1,$$2}' $(MAKEFILE_LIST)

.PHONY: up
up: ## install what is missing, build, start a one-node swarm and the hello example
	@scripts/up

.PHONY: down
down: ## stop the swarm of `make up` and remove every trace of it
	@scripts/down

.PHONY: build
build: bin/podman-swarm bin/psctl ## build bin/podman-swarm and bin/psctl

.PHONY: bin/podman-swarm bin/psctl bin/hello
bin/podman-swarm: internal/node/embed/podman-swarm-netd.gz
	go build -ldflags '$(LDFLAGS)' -o $@ ./cmd/podman-swarm
bin/psctl:
	go build -ldflags '$(LDFLAGS)' -o $@ ./cmd/psctl
bin/hello:
	go build -ldflags '-s -w' -o $@ ./examples/hello/server

# The network helper is carried inside podman-swarm. Its bytes depend on its sources only.
NETD_SRC := $(shell find internal/netd cmd/podman-swarm-netd -name '*.go' ! -name '*_test.go') go.mod
internal/node/embed/podman-swarm-netd.gz: $(NETD_SRC)
	@mkdir -p bin
	go build -buildvcs=false -ldflags '-s -w' -o bin/podman-swarm-netd ./cmd/podman-swarm-netd
	gzip -9nc bin/podman-swarm-netd >$@

.PHONY: test
test: ## everything: lint, unit, property, conformance, end to end
	@scripts/stages deps build lint unit e2e

.PHONY: deps
deps: ## install what building and testing need (Podman and friends)
	@scripts/deps test

.PHONY: unit
unit: internal/node/embed/podman-swarm-netd.gz ## unit, property and storage conformance tests
	go test ./...

.PHONY: race
race: ## unit tests under the race detector (needs a C compiler)
	CGO_ENABLED=1 go test -race $(shell go list ./internal/... | grep -v -e apiserver -e control -e schedule)

.PHONY: e2e
e2e: build bin/hello ## end to end on lab hosts: rootful and rootless, both Podman versions
	@scripts/e2e

.PHONY: fuzz
fuzz: ## every fuzz target for FUZZTIME (default 20s)
	@scripts/fuzz

.PHONY: soak
soak: ## random histories of whole clusters in virtual time (HISTORIES=2000; SWARM_SIM_SEED=N repeats one; NODES=50)
	SWARM_SIM_NODES=$(NODES) SWARM_SIM_HISTORIES=$(or $(HISTORIES),2000) go test ./internal/sim -run Histories -timeout 0 -v

.PHONY: stories
stories: ## every story of test/scenarios, told of a swarm of NODES=50 with PODS=30 on each
	SWARM_SIM_NODES=$(or $(NODES),50) SWARM_SIM_PODS=$(PODS) go test ./internal/sim -run Scenarios -timeout 0 -v

.PHONY: bench
bench: build ## the figures beside their budgets: a table and bench/results/latest.json
	@scripts/bench

.PHONY: bench-scale
bench-scale: build ## a swarm of 50 nodes that pretend, on this machine (SCALE='-nodes 10')
	@mkdir -p bin && go build -o bin/scale ./bench/scale && bin/scale $(SCALE)

.PHONY: lint
lint: $(LINT) ## golangci-lint and gofumpt
	$(LINT) run ./...

.PHONY: fmt
fmt: $(LINT) ## format the code
	$(LINT) fmt ./...

$(LINT):
	@mkdir -p $(@D)
	GOBIN=$(abspath $(@D)) go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(LINT_VERSION)
	mv $(@D)/golangci-lint $@

.PHONY: golden
golden: ## rewrite golden files after an intended change
	go test ./internal/... -update

.PHONY: clean
clean: ## remove what was built
	rm -rf bin .tools internal/node/embed/*.gz
