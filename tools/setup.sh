#!/usr/bin/env bash
# Installs what the conformance tests need besides Go: Node.js, and the packages
# of conformance/oidc-provider. Does nothing that was done before.
set -euo pipefail
cd "$(dirname "$0")/.."

# install PACKAGE... installs Debian packages, as root or by sudo.
install() {
	local root=()
	if ((EUID != 0)); then
		root=(sudo -n)
	fi
	if ! command -v apt-get >/dev/null || ! "${root[@]}" true 2>/dev/null; then
		echo "missing: $*; install it, then run make setup again" >&2
		exit 1
	fi
	"${root[@]}" apt-get update -qq
	"${root[@]}" env DEBIAN_FRONTEND=noninteractive \
		apt-get install -qq -y --no-install-recommends "$@"
}

provider=conformance/oidc-provider
if [[ ! -d $provider ]]; then
	echo "no $provider: nothing to install"
	exit
fi

if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
	install nodejs npm
fi

# npm writes node_modules/.package-lock.json last.
if [[ $provider/node_modules/.package-lock.json -nt $provider/package-lock.json ]]; then
	echo "$provider: up to date"
else
	(cd "$provider" && npm ci --engine-strict --ignore-scripts --no-audit --no-fund)
fi
