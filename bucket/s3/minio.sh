#!/usr/bin/env bash
# Runs the tests that want a real S3 server against a MinIO of their own, which
# listens on the loopback and is gone in the end.
#
#   minio.sh [--cached-only] [package ...]
#
# Of the packages, ./bucket/s3/ if none is given, it runs the tests with MinIO
# in their names, one after the other, as the first makes the bucket. They find the server in KVSTORE_S3_URL and the credentials in
# AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY. The server is $MINIO_BIN, or built
# once, which takes some minutes, and kept in the user's cache; with
# --cached-only nothing is built and no test is run if it is not there.
set -euo pipefail

version=v0.0.0-20260212201848-7aac2a2c5b7c # pinned, as the cache is by version
cached_only=no
if [ "${1:-}" = --cached-only ]; then
	cached_only=yes
	shift
fi
[ $# -gt 0 ] || set -- ./bucket/s3/
cd "$(dirname "$0")/../.."

cache=${XDG_CACHE_HOME:-$HOME/.cache}/kvstore/minio-$version
minio=${MINIO_BIN:-$cache/minio}
if [ ! -x "$minio" ]; then
	if [ -n "${MINIO_BIN:-}" ]; then
		echo "MINIO_BIN: $minio is no program" >&2
		exit 1
	fi
	if [ $cached_only = yes ]; then
		echo "MinIO is not cached: skipped; make test-minio builds it"
		exit 0
	fi
	echo "building MinIO $version, which takes some minutes"
	mkdir -p "$cache"
	GOFLAGS= GOBIN=$cache go install "github.com/minio/minio@$version"
fi

dir=$(mktemp -d "${TMPDIR:-/tmp}/kvstore-minio.XXXXXX")
server=
stop() {
	if [ -n "$server" ]; then
		kill "$server" 2>/dev/null || true
		wait "$server" 2>/dev/null || true
		server=
	fi
}
trap 'stop; rm -rf "$dir"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

secret() { od -An -N20 -tx1 /dev/urandom | tr -d ' \n'; }
AWS_ACCESS_KEY_ID=$(secret)
AWS_SECRET_ACCESS_KEY=$(secret)
export AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY
unset AWS_SESSION_TOKEN AWS_PROFILE AWS_REGION AWS_DEFAULT_REGION

# ready asks for the server's health, without curl.
ready() {
	(
		exec 3<>"/dev/tcp/127.0.0.1/$1" &&
			printf 'GET /minio/health/ready HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n' >&3 &&
			read -r -t 2 line <&3 &&
			[[ $line == *" 200 "* ]]
	) 2>/dev/null
}

# Another program may take a port between the look at it and the start, so a
# server that ends at once is tried again elsewhere.
for _ in 1 2 3 4 5; do
	port=$((20000 + RANDOM % 10000))
	if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
		continue
	fi
	MINIO_ROOT_USER=$AWS_ACCESS_KEY_ID MINIO_ROOT_PASSWORD=$AWS_SECRET_ACCESS_KEY \
		MINIO_BROWSER=off MINIO_UPDATE=off MINIO_CONFIG_DIR=$dir/config \
		"$minio" server --quiet --address "127.0.0.1:$port" "$dir/data" >"$dir/log" 2>&1 &
	server=$!
	for _ in $(seq 300); do
		kill -0 "$server" 2>/dev/null || break
		if ready "$port"; then
			break 2
		fi
		sleep 0.1
	done
	stop
done
if [ -z "$server" ]; then
	echo "MinIO does not start:" >&2
	cat "$dir/log" >&2 || true
	exit 1
fi

KVSTORE_S3_URL="s3://kvstore-test/tests?endpoint=http://127.0.0.1:$port&region=us-east-1" \
	go test -count=1 -p 1 -timeout 8m -v -run MinIO "$@"
