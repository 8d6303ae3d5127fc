#!/usr/bin/env bash
# The steps of a release; see RELEASING.md.
#
#	tools/release.sh check [VERSION]    tries the release out, and changes nothing
#	tools/release.sh prepare VERSION    makes the modules require VERSION of each other
#	tools/release.sh tag VERSION        tags the commit, once for each released module
#
# VERSION looks like v1.2.3. By default, check uses the newest version in CHANGELOG.md.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD

# Modules that are never released, because they are of no use outside this repository.
unreleased='^(conformance|conformance/hydra|benchmarks|tools|examples/.*)$'

# all prints the directories of all modules, beginning with the core.
all() {
	find . \( -name .git -o -name bin -o -name node_modules -o -name testdata \) -prune -o -name go.mod -printf '%h\n' |
		sed 's#^\./##' | sort
}

# modules prints the directories of the released modules.
modules() { all | grep -vE "$unreleased"; }

# path DIRECTORY prints the path of the module in DIRECTORY.
path() { (cd "$1" && GOWORK=off go list -m); }

# requirements DIRECTORY prints which of our modules the module in DIRECTORY requires.
requirements() {
	(cd "$1" && go mod edit -json) | sed -nE "s#^[[:space:]]*\"Path\": \"($core(/[^\"]*)?)\",?#\1#p" | sort -u | grep -vxF "$(path "$1")" || true
}

fail() {
	echo "release.sh: $*" >&2
	exit 1
}

step() { printf '\n==> %s\n' "$*"; }

# require DIRECTORY makes the module in DIRECTORY require $version of our other modules.
require() {
	local module
	for module in $(requirements "$1"); do
		(cd "$1" && go mod edit -require="$module@$version")
	done
}

check() {
	work=$(mktemp -d)
	trap 'chmod -R u+w "$work" && rm -rf "$work"' EXIT
	mkdir "$work/tree" "$work/proxy"
	# Copy the files that git tracks or would add, except deleted ones.
	git ls-files -co --exclude-standard -z | perl -0 -ne 'chomp; print "$_\0" if -e' |
		tar --null -T - -cf - | tar -xf - -C "$work/tree"
	go -C tools build -o ../bin/ ./modproxy

	# Use a separate module cache, so that the go command never takes this trial for the
	# release. Modules of other projects come from the usual cache where it has them.
	GOPROXY="file://$work/proxy,file://$(go env GOMODCACHE)/cache/download,$(go env GOPROXY)"
	export GOPROXY GOWORK=off GOMODCACHE=$work/modcache GONOSUMDB="$core,$core/*" GOTOOLCHAIN=local
	export GOFLAGS="$(go env GOFLAGS) -mod=mod -modcacherw"

	step "go.mod of each module"
	cd "$work/tree"
	for dir in $(modules); do
		if [[ $dir == . ]]; then
			if grep -E '^(replace|tool|exclude)\b' go.mod; then
				fail "the core's go.mod must not contain these lines"
			fi
			continue
		fi
		for module in $(requirements "$dir"); do
			(cd "$dir" && go mod edit -dropreplace="$module")
		done
		require "$dir"
		if (cd "$dir" && go mod edit -json) | grep -A 9 '"Replace": \[' | grep '"Old"'; then
			fail "$dir/go.mod may only replace modules of this repository that it requires, because a replace doesn't apply to consumers"
		fi
		echo "$dir: $(requirements "$dir" | tr '\n' ' ')at $version"
	done

	step "the modules as the proxy serves them"
	for dir in $(modules); do
		"$root/bin/modproxy" "$work/proxy" "$version" "$dir"
	done

	for dir in $(modules); do
		if [[ $dir == . ]]; then
			continue # The core replaces nothing, so make test has tested it like this.
		fi
		step "[$dir] without replace: go build, go vet, go test"
		(cd "$dir" && go build ./... && go vet ./... && go test -timeout 5m ./...)
	done

	consume core "$core" "$core/clientauth" "$core/clientcredentialstest"
	step "[consumer] the modules it sees"
	go list -m all
	seen=$(go list -m all | wc -l)
	built=$(go list -deps -f '{{with .Module}}{{.Path}}{{end}}' . | sort -u | grep -vx example.com/consumer | tr '\n' ' ')
	echo "modules: $seen; built into the program: $built"
	((seen <= most_modules)) || fail "a consumer of the core sees $seen modules, and must see at most $most_modules"
	[[ $built == "$core golang.org/x/oauth2 " ]] || fail "only the core and x/oauth2 may be built into the program"

	for dir in $(cd "$work/tree" && modules); do
		packages=$(cd "$work/tree/$dir" && go list -f '{{if and (ne .Name "main") .GoFiles}}{{.ImportPath}}{{end}}' ./...)
		packages=$(grep -v /internal/ <<<"$packages" || true)
		# There is nothing to import in a module that has only a command.
		if [[ $dir != . && -n $packages ]]; then
			consume "$dir" $packages
		fi
	done
	for dir in "$work"/tree/cmd/*/; do
		# A module with a replace can't be installed by its path: docs/ccproxy.md says how to build it.
		if [[ -e $dir/main.go && ! -e $dir/go.mod ]]; then
			step "go install $core/cmd/$(basename "$dir")@$version"
			GOBIN=$work/gobin go install "$core/cmd/$(basename "$dir")@$version"
		fi
	done
	step "all checks passed: $version of $(cd "$work/tree" && modules | wc -l) modules can be released"
}

# The largest number of modules that go list -m all may print for a consumer of the core:
# itself, the core, x/oauth2 with two modules that it requires, and testify with one.
most_modules=7

# consume NAME PACKAGE... builds and runs a program that imports these packages. The
# program is outside the repository, and its directory becomes the current one.
consume() {
	local name=${1//\//-}
	shift
	step "[consumer] of $name"
	mkdir -p "$work/consumer/$name"
	cd "$work/consumer/$name"
	{
		printf 'package main\n\nimport (\n'
		printf '\t_ "%s"\n' "$@"
		printf '\n\t"fmt"\n)\n\nfunc main() { fmt.Println("built and run") }\n'
	} >main.go
	printf 'module example.com/consumer\n\ngo 1.25.0\n' >go.mod
	go get "${@/%/@$version}"
	go mod tidy
	go vet .
	go run .
}

# prepare also changes the modules that are never released: otherwise they would select
# the version that a released module requires.
prepare() {
	for dir in $(all); do
		require "$dir"
		(cd "$dir" && GOWORK=off go mod tidy)
		git --no-pager diff --stat -- "$dir/go.mod"
	done
}

tag() {
	[[ -z $(git status --porcelain) ]] || fail "the working tree has changes: commit them first"
	grep -q "^## ${version#v} - " CHANGELOG.md || fail "CHANGELOG.md has no entry \"## ${version#v} - DATE\""
	for dir in $(modules); do
		for module in $(requirements "$dir"); do
			grep -qF "$module $version" "$dir/go.mod" || fail "$dir/go.mod doesn't require $module $version: run tools/release.sh prepare $version, and commit"
		done
	done
	for dir in $(modules); do
		name=${dir#.}
		git tag -a -m "$(path "$dir") $version" "${name:+$name/}$version"
	done
	git tag --points-at HEAD
	echo "Now: git push origin $(git tag --points-at HEAD | tr '\n' ' ')"
}

core=$(path .)
version=${2:-}
if [[ -z $version && ${1:-} == check ]]; then
	version=v$(sed -nE 's/^## ([0-9]+\.[0-9]+\.[0-9]+).*/\1/p' CHANGELOG.md | head -n 1)
fi
[[ $version =~ ^v[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?$ ]] || fail "usage: tools/release.sh check|prepare|tag VERSION, and VERSION looks like v1.2.3"
case $1 in
check | prepare | tag) "$1" ;;
*) fail "usage: tools/release.sh check|prepare|tag VERSION" ;;
esac
