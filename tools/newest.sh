#!/usr/bin/env bash
# Prints the name of a file for -modfile: the go.mod of the module in DIRECTORY, but with the
# libraries that it requires in the versions of tools/go.mod, which are the newest.
#
#	tools/newest.sh DIRECTORY
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
export GOWORK=off
mkdir -p bin
cd "$1"

modfile=$root/bin/newest-$(basename "$(go list -m)").mod
cp go.mod "$modfile"
cat go.sum "$root/tools/go.sum" >"${modfile%.mod}.sum"
for library in $(go list -m -f '{{if not (or .Main .Indirect .Replace)}}{{.Path}}{{end}}' all); do
	version=$(go -C "$root/tools" list -m -f '{{.Version}}' "$library") || {
		echo "newest.sh: add $library to tools/newest/newest.go, and its newest version to tools/go.mod" >&2
		exit 1
	}
	go mod edit -require="$library@$version" "$modfile"
done
go mod tidy -modfile="$modfile"
echo "$modfile"
