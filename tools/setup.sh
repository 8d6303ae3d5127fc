#!/usr/bin/env bash
# Installs what the tests need besides Go, on Debian 12, and skips what is already
# there:
#
#   - Node.js, and the npm packages of conformance/oidc-provider and conformance/node-oauth
#   - Ory Hydra, which it builds into bin/
#   - authorization servers that Debian packages for its own Python
#   - Redis, for redisstore, cmd/ccproxy and examples/fleet
#   - RabbitMQ, for examples/protocols
#   - the programs that the commands in docs/cctoken.md use
set -euo pipefail
cd "$(dirname "$0")/.."

# Debian packages, and the versions that the tests were written for. The Python modules
# are for /usr/bin/python3. The version of redis-server begins with an epoch. For
# packages without a version, any will do.
packages=(python3-authlib=1.2. python3-django-oauth-toolkit=1.7. python3-flask=2.2.
	redis-server=5:7.0. rabbitmq-server=3.10. curl= jq= openssl=)

# How long to wait for another program to release apt's locks, in seconds.
patience=600

# unable REASON says what can't be tested on this machine, and exits.
unable() {
	cat >&2 <<-END

		This machine can't run all of \`make test\`: $1

		These parts can't run here:

		  conformance         needs Node.js 20 or later with npm, a C compiler, and
		                      python3-authlib, python3-django-oauth-toolkit and
		                      python3-flask of Debian 12
		  redisstore          needs redis-server 7.0 of Debian 12
		  examples/fleet      needs redis-server
		  cmd/ccproxy         needs redis-server for tests that are skipped without it
		  examples/protocols  needs rabbitmq-server 3.10 of Debian 12
		  cmd/cctoken         needs curl, jq and openssl for one test, which is skipped
		                      without them: it runs the commands in docs/cctoken.md

		Everything else can be tested without them. To test the library, run this in
		the root of the repository. It needs nothing but Go:

		  go test ./...

	END
	exit 1
}

# version PACKAGE prints the version of an installed Debian package.
version() {
	dpkg-query -W -f '${db:Status-Status} ${Version}' "$1" 2>/dev/null | sed -n 's/^installed //p'
}

# install PACKAGE... installs Debian packages, as root or with sudo.
install() {
	root=()
	command -v apt-get >/dev/null || unable "$* must be installed, and there is no apt-get."
	if ((EUID != 0)); then
		root=(sudo -n)
		"${root[@]}" true 2>/dev/null ||
			unable "$* must be installed, and you are neither root nor allowed to use sudo without a password."
	fi
	apt update
	apt install -y --no-install-recommends "$@"
	# The tests start servers of their own. The one that Debian starts for RabbitMQ would
	# listen on all interfaces.
	if [[ " $* " == *" rabbitmq-server "* && -d /run/systemd/system ]]; then
		"${root[@]}" systemctl disable --now rabbitmq-server.service epmd.socket epmd.service
	fi
}

# apt ARGUMENT... runs apt-get, and waits while another program holds one of its locks.
# DPkg::Lock::Timeout wouldn't do: it doesn't apply to the locks of the package lists and
# of the downloaded packages, and it waits without saying so.
apt() {
	local output held deadline=$((SECONDS + patience))
	until output=$("${root[@]}" env LC_ALL=C DEBIAN_FRONTEND=noninteractive apt-get -qq "$@" 2>&1); do
		held=$(grep -m 1 -o 'Could not get lock.*' <<<"$output") || true
		if [[ -z $held ]] || ((SECONDS >= deadline)); then
			printf 'apt-get %s failed:\n%s\n' "$*" "$output" >&2
			return 1
		fi
		echo "waiting up to $((deadline - SECONDS))s for another program to finish with apt: $held"
		sleep 5
	done
}

npm_servers=(conformance/oidc-provider conformance/node-oauth)
if [[ ! -d conformance ]]; then
	echo "there is no conformance: nothing to install"
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
		unable "${package%=*} is version $installed, and the tests were written for ${package#*=}x of Debian 12."
	fi
	echo "${package%=*} $installed: up to date"
done
node=$(node --version)
major=${node#v}
if ((${major%%.*} < 20)); then
	unable "Node.js is $node, and ${npm_servers[0]} needs version 20 or later, which Debian 12 doesn't have."
fi

for server in "${npm_servers[@]}"; do
	# node_modules/.package-lock.json is the last file that npm writes.
	if [[ $server/node_modules/.package-lock.json -nt $server/package-lock.json ]]; then
		echo "$server: up to date"
	else
		(cd "$server" && npm ci --engine-strict --ignore-scripts --no-audit --no-fund)
	fi
done

# The first build takes a minute and a half on two idle cores. It would be two minutes with
# optimised code, which the tests don't need. After that a build takes a few seconds, because
# the go command caches what it has built.
echo "building Ory Hydra"
mkdir -p bin
GOWORK=off CGO_ENABLED=1 CGO_CFLAGS=-O0 go -C conformance/hydra build -tags sqlite,sqlite_omit_load_extension \
	-ldflags=-w '-gcflags=all=-N -l' -gcflags=std= -o "$PWD/bin/hydra" .
