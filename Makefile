# Development tasks. `make help` lists them; `make test` is what CI runs.
# Needs GNU make, bash, Go and a C compiler (for the race detector);
# everything else is pinned in tools/go.mod or installed by `make setup`.

SHELL       := bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS   += --no-print-directory
.DEFAULT_GOAL := help
# A recipe is one script, which stops at the first command that fails.
.ONESHELL:

# The least statement coverage of the core packages, in percent.
COVERAGE := 90.0
CORE     := .
# How long each fuzz target runs in `make fuzz`.
FUZZTIME ?= 60s
# A hanging test prints its goroutines before CI gives up.
TIMEOUT  := 10m

# $(call find,NAME) finds the files of that name which are ours.
find = find . \( -name .git -o -name bin -o -name node_modules -o -name testdata \) -prune \
	-o -name $(1)

# Every module of the repository. tools/ is checked, but has nothing to test.
ALL_MODULES := $(patsubst %/go.mod,%,$(sort $(shell $(call find,go.mod) -print)))
MODULES     := $(filter-out ./tools,$(ALL_MODULES))
# Modules whose tests need real servers: there, a skipped test is a failure.
WITH_SERVERS := $(filter ./conformance ./redisstore ./examples/fleet,$(MODULES))

# What a module needs has to stand in its own go.mod, so a developer's go.work
# doesn't count here.
export GOWORK := off
export PATH   := $(CURDIR)/bin:$(PATH)

# $(call each,MODULES,COMMAND) runs COMMAND in each of the modules.
each = @for module in $(1); do (cd $$module && echo "[$$module] $(2)" && $(2)); done

##@ Test

# The cheap sections come first, the tests last.
SECTIONS := tools setup check-format check-tidy vet modernize golangci-lint \
	check-docs check-workflows apidiff cover test-modules test-servers

.PHONY: test
test: ## everything that CI checks
	@for section in $(SECTIONS); do
		printf '\n==> %s\n' $$section
		start=$$SECONDS
		$(MAKE) $$section || { echo "==> $$section FAILED after $$((SECONDS - start))s"; exit 1; }
		echo "==> $$section took $$((SECONDS - start))s"
	done
	printf '\n==> everything passed, in %ss\n' $$SECONDS

.PHONY: test-modules
test-modules: ## go test -race in every module that needs no server
	$(call each,$(filter-out $(WITH_SERVERS),$(MODULES)),go test -race -timeout $(TIMEOUT) ./...)

# Not part of `make test`, which needs the Go of tools/go.mod.
.PHONY: test-oldest
test-oldest: export GOTOOLCHAIN := local
test-oldest: ## go test in the modules that do with this Go: the core has to
	@for module in $(filter-out $(WITH_SERVERS),$(MODULES)); do
		cd $(CURDIR)/$$module
		if [[ $$module != . ]] && ! go list -m >/dev/null 2>&1; then
			echo "[$$module] needs a newer Go"
			continue
		fi
		echo "[$$module] go test -timeout $(TIMEOUT) ./..."
		go test -timeout $(TIMEOUT) ./...
	done

# -v tells which tests were skipped, and is too much to read when none was.
.PHONY: test-servers
test-servers: export CLIENTCREDENTIALS_REQUIRE_SERVERS := 1
test-servers: setup | bin ## go test -race against real servers, none skipped
	@for module in $(WITH_SERVERS); do
		log=$(CURDIR)/bin/test-$${module##*/}.out
		echo "[$$module] go test -race -count=1 -timeout $(TIMEOUT) ./..."
		(cd $$module && go test -race -count=1 -timeout $(TIMEOUT) -v ./...) >$$log 2>&1 || { cat $$log; exit 1; }
		grep '^ok' $$log || { echo "no test ran: see $$log"; exit 1; }
		if grep -E '^ *--- SKIP' $$log; then echo "skipped: see $$log"; exit 1; fi
	done

.PHONY: cover
cover: | bin ## statement coverage of the core packages
	@go test -timeout $(TIMEOUT) -coverprofile=bin/cover.out $(CORE)
	total=$$(go tool cover -func=bin/cover.out | awk '/^total:/ { print $$NF }')
	echo "coverage: $$total of statements, at least $(COVERAGE)% wanted"
	awk -v total="$$total" 'BEGIN { exit !(total + 0 >= $(COVERAGE)) }'

.PHONY: fuzz
fuzz: ## run each fuzz target for FUZZTIME (60s)
	@for module in $(MODULES); do
		cd $(CURDIR)/$$module
		packages=$$(go list ./...)
		for package in $$packages; do
			targets=$$(go test -list '^Fuzz' $$package | sed -n '/^Fuzz/p')
			for target in $$targets; do
				echo "[$$module] $$package $$target"
				go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$package
			done
		done
	done

.PHONY: providers
providers: setup ## write what the tests find into docs/providers.md
	@cd conformance
	go test -count=1 -timeout $(TIMEOUT) -run '^(TestMatrix|TestSecrets)$$' -update .

.PHONY: fleet-figures
fleet-figures: ## simulate fleets, and write the figures into docs/fleet.md
	@go test -count=1 -timeout 20m -run '^TestFleetFigures$$' -update-figures .

# Half an hour on two cores: not part of `make test`.
.PHONY: mutate
mutate: ## remove each guard in turn, and see a test fail; RUN=regexp chooses some
	@go -C tools run ./mutate -run '$(RUN)' $(CURDIR)

##@ Lint

.PHONY: lint
lint: check-format check-tidy vet modernize golangci-lint check-docs check-workflows ## all of these checks

.PHONY: check-format
check-format: tools
	@unformatted=$$($(call find,'*.go') -print0 | xargs -0 gofumpt -l)
	if [[ -n $$unformatted ]]; then echo "make format changes:"; echo "$$unformatted"; exit 1; fi

.PHONY: check-tidy
check-tidy: ## go mod tidy changes nothing
	$(call each,$(ALL_MODULES),go mod tidy -diff)

.PHONY: vet
vet:
	$(call each,$(ALL_MODULES),go vet ./...)

.PHONY: modernize
modernize: ## go fix changes nothing
	$(call each,$(ALL_MODULES),go fix -diff ./...)

.PHONY: golangci-lint
golangci-lint: tools
	$(call each,$(ALL_MODULES),golangci-lint run --allow-parallel-runners ./...)

.PHONY: check-docs
check-docs: tools ## links, Go code and copied files in *.md
	@$(call find,'*.md') -print0 | xargs -0 doccheck

# shellcheck and pyflakes would be used if they happened to be installed.
.PHONY: check-workflows
check-workflows: tools ## the workflows of GitHub
	@actionlint -shellcheck= -pyflakes= .github/workflows/*.yml

.PHONY: apidiff
apidiff: tools ## our exported API against that of x/oauth2/clientcredentials
	@tools/apidiff.sh

# Not part of `make test`: it needs the Go vulnerability database, from the network.
.PHONY: vuln
vuln: ## known vulnerabilities; needs the Go vulnerability database
	@go -C tools build -o ../bin/ golang.org/x/vuln/cmd/govulncheck
	$(call each,$(MODULES),govulncheck ./...)

##@ Release

# Not part of `make test`: what it tests has been tested there, with the replaces.
.PHONY: release-check
release-check: ## build, test and use the modules as they would be released; VERSION=v1.2.3
	@tools/release.sh check $(VERSION)

##@ Develop

.PHONY: format
format: tools ## rewrite the Go files: gofumpt, go fix, go mod tidy
	$(call each,$(ALL_MODULES),go fix ./... && go mod tidy)
	$(call find,'*.go') -print0 | xargs -0 gofumpt -w

# On a machine that has nothing else to do: not part of `make test`, which only sees
# whether it works.
.PHONY: bench
bench: ## measure beside other libraries, and write docs/performance.md; 5 minutes
	@go -C benchmarks run . -out ../docs

.PHONY: setup
setup: ## install what the tests with real servers need
	@tools/setup.sh

# A build that is up to date takes half a second.
.PHONY: tools
tools: | bin
	@go -C tools build -o ../bin/ ./doccheck mvdan.cc/gofumpt \
		github.com/golangci/golangci-lint/v2/cmd/golangci-lint golang.org/x/exp/cmd/apidiff \
		github.com/rhysd/actionlint/cmd/actionlint

# tools/ stays out: what linters depend on would be selected for the others too.
.PHONY: work
work: ## write a go.work with all modules (git ignores it)
	rm -f go.work go.work.sum
	GOWORK= go work init $(MODULES)

.PHONY: clean
clean: ## remove what make built
	rm -rf bin

bin:
	@mkdir -p bin

.PHONY: help
help:
	@awk -F ':.*## ' '/^##@/ { printf "\n%s\n", substr($$0, 5) } /^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' Makefile
