#!/usr/bin/env bash
# Installs what the tests need besides Go: Node.js with the packages of
# conformance/oidc-provider, the authorization servers that Debian has for its own
# Python, Redis for redisstore, and what the command lines of docs/cctoken.md call. Does
# nothing that was done before.
set -euo pipefail
cd "$(dirname "$0")/.."

# Debian's packages, with the versions that the tests know: modules for
# /usr/bin/python3, and redis-server, whose versions have an epoch. Of the others any
# version will do.
packages=(python3-authlib=1.2. python3-django-oauth-toolkit=1.7. python3-flask=2.2.
	redis-server=5:7.0. curl= jq= openssl=)

# version PACKAGE prints the version of an installed Debian package.
version() {
	dpkg-query -W -f '${db:Status-Status} ${Version}' "$1" 2>/dev/null | sed -n 's/^installed //p'
}

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

missing=()
if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
	missing+=(nodejs npm)
fi
for package in "${packages[@]}"; do
	if [[ -z $(version "${package%=*}") ]]; then
		missing+=("${package%=*}")
	fi
done
if ((${#missing[@]})); then
	install "${missing[@]}"
fi

for package in "${packages[@]}"; do
	installed=$(version "${package%=*}")
	if [[ $installed != "${package#*=}"* ]]; then
		echo "${package%=*} is $installed: the tests are for ${package#*=}x, of Debian 12" >&2
		exit 1
	fi
	echo "${package%=*} $installed: up to date"
done

# npm writes node_modules/.package-lock.json last.
if [[ $provider/node_modules/.package-lock.json -nt $provider/package-lock.json ]]; then
	echo "$provider: up to date"
else
	(cd "$provider" && npm ci --engine-strict --ignore-scripts --no-audit --no-fund)
fi
