#!/usr/bin/env bash
# Compares our exported API with that of golang.org/x/oauth2/clientcredentials, in the
# version that go.mod selects. Additions are fine. Incompatible changes must be listed in
# docs/compatibility.md, word for word, in a block
#
#	```apidiff
#	- Config.Scopes: changed from []string to []byte
#	```
#
# A listed change that doesn't exist is an error too.
#
# It needs bin/apidiff: run it with `make apidiff`.
set -euo pipefail
cd "$(dirname "$0")/.."

upstream=golang.org/x/oauth2/clientcredentials
ours=$(go list .)
document=docs/compatibility.md

# apidiff exits 0 even when it finds changes, and 1 when it can't load a package.
found=$(bin/apidiff -incompatible "$upstream" "$ours" | sort)
allowed=
if [[ -e $document ]]; then
	allowed=$(awk '/^```apidiff$/ { inside = 1; next } /^```$/ { inside = 0 } inside && NF' "$document" | sort)
fi

unexpected=$(comm -23 <(echo "$found") <(echo "$allowed"))
untrue=$(comm -13 <(echo "$found") <(echo "$allowed"))
if [[ -n $unexpected ]]; then
	echo "Incompatible with $upstream, and not listed in $document:"
	echo "$unexpected"
fi
if [[ -n $untrue ]]; then
	echo "Listed in $document, but no longer there:"
	echo "$untrue"
fi
[[ -z $unexpected$untrue ]]

version=$(go list -m -f '{{.Path}} {{.Version}}' golang.org/x/oauth2)
echo "$ours has the exported API of $upstream ($version)${allowed:+, with $(wc -l <<<"$allowed") listed change(s)}."
