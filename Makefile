# Development tasks. `make help` lists them; `make test` is what CI runs.
# They need GNU make, bash, Go and a C compiler (for the race detector).
# Everything else is pinned in tools/go.mod or installed by `make setup`.

SHELL       := bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS   += --no-print-directory
.DEFAULT_GOAL := help
# Each recipe is one script, which stops at the first command that fails.
.ONESHELL:

# The statement coverage that the core packages must have, in percent. They are the root
# package and all internal packages but those that support tests.
COVERAGE     := 98.0
TEST_SUPPORT := /internal/(hostile|leakcheck|svg|testkit)$$
# How long each fuzz target runs in `make fuzz`.
FUZZTIME ?= 60s
# A test that hangs prints its goroutines before CI gives up.
TIMEOUT  := 10m
# Tests of the core that take long, and don't depend on the platform or on a library's version.
LONG := Simulation|TestFleetFigures|TestFootprint

# $(call find,NAME) finds our own files of that name.
find = find . \( -name .git -o -name bin -o -name node_modules -o -name testdata \) -prune \
	-o -name $(1)

# All modules of the repository, and those that developers work on together. What linters
# depend on must not select the versions of the other modules, so tools/ stays apart.
#
# conformance/hydra is neither: linters would compile all of Ory Hydra once more for its
# one file. `make setup` builds it, and the tests in conformance/ run it.
ALL_MODULES := $(filter-out ./conformance/hydra,$(patsubst %/go.mod,%,$(sort $(shell $(call find,go.mod) -print))))
MODULES     := $(filter-out ./tools,$(ALL_MODULES))
# Modules that programs import.
LIBRARIES   := $(filter-out ./benchmarks ./conformance ./cmd/% ./examples/%,$(MODULES))
# Modules whose tests need real servers: there, a skipped test is a failure.
WITH_SERVERS := $(filter ./conformance ./redisstore ./cmd/ccproxy ./examples/fleet ./examples/protocols,$(MODULES))

# Each go.mod must list what its module needs, so a developer's go.work is ignored here.
export GOWORK := off
export PATH   := $(CURDIR)/bin:$(PATH)

# $(call each,MODULES,COMMAND,ENVIRONMENT) runs COMMAND in each of the modules.
each = @for module in $(1); do (cd $$module && echo "[$$module] $(2)" && $(3) $(2)); done

# Tests and linters compile the same code for the race detector, so that it is compiled once.
# The inliner takes a third of the compiler's time, and no test needs it in other people's
# packages.
LEAN := -gcflags=all=-l -gcflags=std= -gcflags=$(shell go list -m)/...=
RACE := -race $(LEAN)

# golangci-lint finds what go test would look for once more with go vet.
GO_TEST := go test -vet=off -timeout $(TIMEOUT)

##@ Test

# Cheap sections come first, so that mistakes show early.
SECTIONS := setup tools check-format check-tidy golangci-lint modernize check-docs \
	check-workflows apidiff test-upstream test-tools cover test-newest test-platforms test-modules test-fuzz test-servers

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
	$(call each,$(filter-out $(WITH_SERVERS),$(MODULES)),$(GO_TEST) $(RACE) ./...)

# The go.mod of a library asks for the oldest versions that work, because every program that
# imports it gets what it asks for. The other tests run with those, and `make cover` tests the
# core with the newest ones. Here a test isn't skipped without its server either: it fails.
.PHONY: test-newest
test-newest: export CLIENTCREDENTIALS_REQUIRE_SERVERS := 1
test-newest: ## go test in the nested libraries with the newest versions of what they require
	@for module in $(filter-out .,$(LIBRARIES)); do
		modfile=$$(tools/newest.sh $$module)
		echo "[$$module] $(GO_TEST) -modfile $${modfile#$(CURDIR)/} ."
		(cd $$module && $(GO_TEST) $(LEAN) -modfile $$modfile .)
	done

.PHONY: test-upstream
test-upstream: ## run upstream's own tests with our package, and the oldest and newest x/oauth2
	@tools/upstream.sh go.mod
	modfile=$$(tools/newest.sh .)
	tools/upstream.sh "$$modfile"

# The go command caches results without regard to files of other modules, which the
# tests of the tools read.
.PHONY: test-tools
test-tools: ## go test -race of our own tools
	@cd tools
	$(GO_TEST) $(RACE) -count=1 ./...

# Node.js uses one core, so the others run beside it.
.PHONY: test-platforms
test-platforms: ## check the core for other platforms; test it under js/wasm and FIPS 140-3
	@$(MAKE) -j2 --output-sync test-js check-platforms test-fips

.PHONY: check-platforms
check-platforms: tools ## compiler and go vet find nothing in the core for other platforms
	crossvet linux/386 linux/s390x windows/amd64 darwin/arm64 js/wasm wasip1/wasm

# Under js/wasm, tests take three times as long. TestCanary would take a minute, and -short skips
# what starts other programs.
.PHONY: test-js
test-js: setup ## go test in the core under js/wasm
	GOOS=js GOARCH=wasm $(GO_TEST) -short -skip '^TestCanary$$' \
		-exec "$$(go env GOROOT)/lib/wasm/go_js_wasm_exec" . ./clientauth ./internal/origin

.PHONY: test-fips
test-fips: ## go test in the core with only the algorithms of FIPS 140-3
	GODEBUG=fips140=only $(GO_TEST) -skip '$(LONG)' . ./clientauth ./clientcredentialstest/...

.PHONY: test-fuzz
test-fuzz: ## run each fuzz target for 3 seconds, to see that it works
	@$(MAKE) fuzz FUZZTIME=3s

# Not part of `make test`, which needs the Go version of tools/go.mod.
.PHONY: test-oldest
test-oldest: export GOTOOLCHAIN := local
test-oldest: ## go test in the modules that support this Go; the core must
	@for module in $(filter-out $(WITH_SERVERS),$(MODULES)); do
		cd $(CURDIR)/$$module
		if [[ $$module != . ]] && ! go list -m >/dev/null 2>&1; then
			echo "[$$module] needs a newer Go"
			continue
		fi
		echo "[$$module] go test -timeout $(TIMEOUT) ./..."
		go test -timeout $(TIMEOUT) ./...
	done

# With -v the output shows which tests were skipped. It goes to a file, as it is long.
.PHONY: test-servers
test-servers: export CLIENTCREDENTIALS_REQUIRE_SERVERS := 1
test-servers: setup | bin ## go test -race against real servers, none skipped
	@for module in $(WITH_SERVERS); do
		log=$(CURDIR)/bin/test-$${module##*/}.out
		echo "[$$module] $(GO_TEST) -race -count=1 ./..."
		(cd $$module && $(GO_TEST) $(RACE) -count=1 -v ./...) >$$log 2>&1 || { cat $$log; exit 1; }
		grep '^ok' $$log || { echo "no test ran: see $$log"; exit 1; }
		if grep -E '^ *--- SKIP' $$log; then echo "skipped: see $$log"; exit 1; fi
	done

# internal/clientsettings and internal/filestore are for the commands. The other tests have
# the oldest golang.org/x/oauth2, and these the newest.
.PHONY: cover
cover: | bin ## go test in the core with the newest x/oauth2, and its statement coverage
	@modfile=$$(tools/newest.sh .)
	packages=$$(go list . ./internal/... | grep -vE '$(TEST_SUPPORT)|internal/(clientsettings|filestore)$$' | paste -sd, -)
	$(GO_TEST) -modfile "$$modfile" -coverpkg="$$packages" -coverprofile=bin/cover.out . ./internal/... ./clientauth ./grant
	total=$$(go tool cover -func=bin/cover.out | awk '/^total:/ { print $$NF }')
	echo "coverage: $$total of statements; it must be at least $(COVERAGE)%"
	awk -v total="$$total" 'BEGIN { exit !(total + 0 >= $(COVERAGE)) }'

# go test -fuzz takes one package and one target at a time.
.PHONY: fuzz
fuzz: ## run each fuzz target for FUZZTIME (60s)
	@$(call find,'*_test.go') -print0 | xargs -0 grep -oE '^func Fuzz\w+' /dev/null | sort |
	while IFS=: read -r file target; do
		cd "$(CURDIR)/$${file%/*}"
		target=$${target#func }
		echo "[$${file%/*}] $$target"
		go test -vet=off -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 1s . </dev/null
	done

.PHONY: providers
providers: setup ## write what the tests find out to docs/providers.md
	@cd conformance
	$(GO_TEST) -count=1 -run '^(TestMatrix|TestSecrets)$$' -update .

.PHONY: fleet-figures
fleet-figures: ## simulate fleets, and write the figures to docs/fleet.md
	@go test -count=1 -timeout 20m -run '^TestFleetFigures$$' -update-figures .

.PHONY: pictures
pictures: ## simulate what the documents show in pictures, and draw them; some seconds
	@go test -count=1 -run '^TestPictures$$' ./docs/pictures -update
	cd otelclientcredentials
	go test -count=1 -run '^TestDashboardPicture$$' . -update

# Not part of `make test`: it takes half an hour on two cores.
.PHONY: mutate
mutate: ## remove each guard in turn: a test must fail; RUN=regexp selects guards
	@go -C tools run ./mutate -run '$(RUN)' $(CURDIR)

# Not part of `make test`: it downloads other people's modules, needs some gigabytes of disk
# for them and for the cache of the go command, and runs their tests.
.PHONY: consumers
consumers: ## run tests of public modules with this package, and write docs/compatibility.md; RUN=regexp selects modules; 10 minutes
	@go -C tools run ./consumers $(if $(RUN),-run '$(RUN)',-update $(CURDIR)/docs/compatibility.md) $(CURDIR)

##@ Lint

.PHONY: lint
lint: check-format check-tidy golangci-lint modernize check-docs check-workflows ## all checks of this section but apidiff and vuln

.PHONY: check-format
check-format: tools ## gofumpt changes nothing
	@unformatted=$$($(call find,'*.go') -print0 | xargs -0 gofumpt -l)
	if [[ -n $$unformatted ]]; then echo "make format changes:"; echo "$$unformatted"; exit 1; fi

.PHONY: check-tidy
check-tidy: ## go mod tidy changes nothing
	$(call each,$(ALL_MODULES),go mod tidy -diff)

.PHONY: golangci-lint
golangci-lint: tools ## golangci-lint, which includes go vet, finds nothing; see .golangci.yml
	$(call each,$(MODULES),golangci-lint run --allow-parallel-runners ./...,GOFLAGS="$(GOFLAGS) $(RACE)")
	$(call each,./tools,golangci-lint run --allow-parallel-runners ./...)

.PHONY: modernize
modernize: ## go fix changes nothing
	$(call each,$(MODULES),go fix -diff ./...,GOFLAGS="$(GOFLAGS) $(RACE)")
	$(call each,./tools,go fix -diff ./...)

.PHONY: check-docs
check-docs: tools ## links and code in *.md are right; docs/cases.md fits the tests, docs/troubleshooting.md the errors
	@$(call find,'*.md') -print0 | xargs -0 doccheck -cases docs/cases.md \
		-errors docs/troubleshooting.md -except tools/doccheck/not-errors.txt

# actionlint uses shellcheck and pyflakes if they happen to be installed. The result
# must not depend on that.
.PHONY: check-workflows
check-workflows: tools ## actionlint finds nothing in the workflows for GitHub, and actions are pinned
	@actionlint -shellcheck= -pyflakes= .github/workflows/*.yml
	@! grep -n 'uses: ' .github/workflows/*.yml | grep -vE '@[0-9a-f]{40} # v[0-9.]+$$'

.PHONY: apidiff
apidiff: tools ## compare our exported API with that of x/oauth2/clientcredentials
	@tools/apidiff.sh

# Not part of `make test`: it needs the Go vulnerability database from the network.
.PHONY: vuln
vuln: ## look for known vulnerabilities; needs the network
	@go -C tools build -o ../bin/ golang.org/x/vuln/cmd/govulncheck
	$(call each,$(MODULES),govulncheck ./...)

##@ Release

# Not part of `make test`, which runs the same tests on the modules in this repository.
.PHONY: release-check
release-check: ## build, test and use the modules as if released; VERSION=v1.2.3
	@tools/release.sh check $(VERSION)

##@ Develop

.PHONY: format
format: tools ## rewrite the Go files: gofumpt, go fix, go mod tidy
	$(call each,$(ALL_MODULES),go fix ./... && go mod tidy)
	$(call find,'*.go') -print0 | xargs -0 gofumpt -w

# Not part of `make test`, which only checks that it works. Run it on an idle machine.
.PHONY: bench
bench: ## compare with other libraries, and write docs/performance.md; 5 minutes
	@go -C benchmarks run . -out ../docs

.PHONY: setup
setup: ## install what the tests need besides Go
	@tools/setup.sh

# If the tools are up to date, this takes half a second.
.PHONY: tools
tools: | bin ## build the tools that the targets above use into bin/
	@go -C tools build -o ../bin/ ./crossvet ./doccheck mvdan.cc/gofumpt \
		github.com/golangci/golangci-lint/v2/cmd/golangci-lint golang.org/x/exp/cmd/apidiff \
		github.com/rhysd/actionlint/cmd/actionlint

.PHONY: work
work: ## write a go.work with all modules but tools/ (git ignores it)
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
