.DEFAULT_GOAL := help
.PHONY: help demo build test lint generate check-generated bench soak mutants fuzz vulncheck kafka-start kafka-stop

DURATION ?= 10m
KAFKA ?= embedded
DEVICES ?= 5000
SEED ?= 0
FUZZTIME ?= 30s

help: ## Print this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: build ## Send a campaign to 100,000 simulated devices and check the books; needs only Go
	./belfry demo

build: ## Build ./belfry
	@echo "Building belfry; the first time compiles everything it uses, which takes a minute or two ..."
	@go build -trimpath -o belfry ./cmd/belfry
	@echo "Built ./belfry"

test: ## Run the test suite: embedded, then on a real Kafka and Redis where this machine has them
	@scripts/test

lint: ## Check format, vet, staticcheck, imports, schemas, compose file and scripts
	@scripts/lint

generate: ## Make the Go code of the .proto files
	@scripts/generate

check-generated: ## Fail where the committed Go code is not what the .proto files say
	@scripts/generate --check

soak: ## Strike a deployment for DURATION (10m) by a SEED, on KAFKA embedded, 1 or 3 brokers; then check it
	@go run ./soak -duration $(DURATION) -kafka $(KAFKA) -devices $(DEVICES) -seed $(SEED)

mutants: ## Make Belfry wrong in ways that matter, one at a time, and show that a test notices
	@scripts/mutants

fuzz: ## Run each fuzz target for FUZZTIME (30s)
	@scripts/fuzz $(FUZZTIME)

bench: ## Make every measurement on a real Kafka and Redis, and write the table in docs/performance.md (an hour)
	@scripts/bench

vulncheck: ## Look for known vulnerabilities in what Belfry uses (asks vuln.go.dev)
	@"$$(scripts/tools)/govulncheck" ./...

kafka-start: ## Start a real Kafka on 127.0.0.1:19092, with its data in .kafka
	@scripts/kafka/kafka-start

kafka-stop: ## Stop it; its data stays
	@scripts/kafka/kafka-stop
