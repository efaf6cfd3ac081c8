# What is checked, and how, stands in .ci/run; here are short names for it.
.POSIX:
.PHONY: help build test race lint fmt cross fuzz bench performance flaky soak sim matrix ci

# How long each fuzz target runs, and each benchmark.
FUZZTIME = 10s
BENCHTIME = 1s

# How often bench repeats a benchmark (benchstat wants 6 or more), and flaky the suite.
BENCHCOUNT = 6
FLAKYCOUNT = 20

# How long soak lasts.
SOAKTIME = 5m

# How often matrix makes each fault.
MATRIX = 10

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1	/p' Makefile

build: ## compile everything
	go build ./...

test: ## run the tests
	go test ./...

race: ## run the tests under the race detector
	go test -race -count=1 ./...

lint: ## go vet, gofmt, gofumpt, staticcheck
	.ci/run vet format staticcheck

fmt: ## format the code
	go tool -modfile=tools/go.mod gofumpt -w .

cross: ## compile everything, tests too, for macOS, Windows and Linux
	.ci/run cross

fuzz: ## run each fuzz target for FUZZTIME
	FUZZTIME=$(FUZZTIME) .ci/run fuzz

bench: ## run the benchmarks, for benchstat
	BENCHTIME=$(BENCHTIME) BENCHCOUNT=$(BENCHCOUNT) .ci/run bench

performance: ## measure this module beside its peers, for docs/performance.md
	go run ./bench

flaky: ## run the whole suite FLAKYCOUNT times under the race detector
	go test -race -count=$(FLAKYCOUNT) -timeout=60m ./...

soak: ## use a pool in every way while its workers are killed, for SOAKTIME
	SOAK=$(SOAKTIME) go test -count=1 -run='^TestSoak$$' -v -timeout=60m .

sim: ## simulate a cluster of 1,000 agents and a million calls in every trouble, and print a table
	SIM=full go test -count=1 -run='^TestSimulation$$' -timeout=4h ./cluster -v

matrix: ## make each fault that a cluster has to survive MATRIX times, and print a table of what became of the calls
	cd cluster && MATRIX=$(MATRIX) go test -count=1 -run='^TestMatrix$$' -timeout=120m

ci: ## all that must pass before a change lands
	.ci/run
