#!/usr/bin/env bash
# Runs the tests of golang.org/x/oauth2/clientcredentials as tests of our package: those of the
# version that MODFILE, a go.mod, selects.
#
#	tools/upstream.sh MODFILE
#
# An overlay puts upstream's test files, from the module cache, into the place of ours. These
# are all tests of upstream that can be for our package. Those of the package
# golang.org/x/oauth2 test its own types, which we use as they are.
set -euo pipefail
cd "$(dirname "$0")/.."
export GOWORK=off
mkdir -p bin

package=golang.org/x/oauth2/clientcredentials
upstream=$(go list -modfile="$1" -f '{{.Dir}}' "$package")
version=$(go list -modfile="$1" -m -f '{{.Path}} {{.Version}}' "${package%/*}")

# A test in a package of its own would import upstream's package, and test that one.
if grep -n "\"$package\"" "$upstream"/*_test.go; then
	echo "upstream.sh: replace this import in a copy of the file" >&2
	exit 1
fi

{
	for file in *_test.go; do
		echo "\"$PWD/$file\": \"\""
	done
	for file in "$upstream"/*_test.go; do
		echo "\"$PWD/upstream_$(basename "$file")\": \"$file\""
	done
} | paste -sd, | sed 's/.*/{"Replace": {&}}/' >bin/upstream.json

go test -modfile="$1" -overlay=bin/upstream.json -count=1 -v . >bin/upstream.out || {
	cat bin/upstream.out
	exit 1
}
written=$(sed -nE 's/^func ((Test|Fuzz|Example)\w*)\(.*/\1/p' "$upstream"/*_test.go | sort)
passed=$(sed -nE 's/^--- PASS: (\w+).*/\1/p' bin/upstream.out | sort)
if [[ -z $written || $written != "$passed" ]]; then
	echo "upstream.sh: not all tests of $version have passed:" >&2
	diff <(echo "$written") <(echo "$passed") >&2
	exit 1
fi
echo "$(wc -l <<<"$passed") tests of $version pass with our package: ${passed//$'\n'/, }"
