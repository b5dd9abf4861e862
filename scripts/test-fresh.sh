#!/bin/bash
# Proves the clean machine: a minimal Debian 12 (debootstrap, cached) under a throw-away overlay, in its own mount
# and process namespaces; the current HEAD is cloned into it and `make demo` and `make test` run there.
#
#   scripts/test-fresh.sh [MAKE_TARGET...]     default: demo test
#
# The machine's apt, npm, proxy and certificate settings are passed in as they are. The kernel and the network are the
# host's. Results: build/fresh/ (log, demo.json, test-results). Limit: FRESH_LIMIT seconds (default 4500).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly limit=${FRESH_LIMIT:-4500}
# shellcheck source=scripts/clean-debian.sh
. scripts/clean-debian.sh

say() { printf 'test-fresh: %s\n' "$*"; }

die() {
  printf 'test-fresh: error: %s\n' "$*" >&2
  exit 1
}

# --- inside the new namespaces -----------------------------------------------------------------------------------

inside() {
  trap 'exit 143' TERM # the first process of a namespace ignores what it does not handle
  local work=$1 root=$1/root rc=0 settings
  shift
  mkdir -p "$work"/{upper,scratch,root}
  if ! mount -t overlay overlay -o "lowerdir=$debian_base,upperdir=$work/upper,workdir=$work/scratch" "$root" 2>/dev/null; then
    # The checkout itself is on an overlay, which cannot be an upper layer: use memory.
    mount -t tmpfs -o size=8g tmpfs "$work/upper"
    mkdir "$work"/upper/{upper,scratch}
    mount -t overlay overlay -o "lowerdir=$debian_base,upperdir=$work/upper/upper,workdir=$work/upper/scratch" "$root"
  fi
  mount -t proc proc "$root/proc"
  mount -t sysfs sysfs "$root/sys" # a new mount: without the host's bpffs, as on a fresh machine
  mount --rbind /dev "$root/dev"
  mount -t tmpfs tmpfs "$root/run"
  copy_settings "$root"
  git clone --quiet --no-hardlinks . "$root/root/xmasq"
  rm -rf "$root/root/xmasq/.git/hooks"
  mapfile -t settings < <(passed_environment)
  # shellcheck disable=SC2016 # for the shell inside
  chroot "$root" /usr/bin/env -i HOME=/root TERM=dumb LANG=C.UTF-8 CI="${CI:-}" \
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "${settings[@]}" \
    /bin/bash -euc 'cd /root/xmasq; for target; do echo "--- make $target"; make "$target"; done' fresh "$@" || rc=$?
  cp -r "$root/root/xmasq/build/demo.json" "$root/root/xmasq/build/test-results" \
    "$root/root/xmasq/.cache/setup.log" build/fresh/ 2>/dev/null || true
  return "$rc"
}

if [ "${1:-}" = --inside ]; then
  shift
  inside "$@"
  exit
fi

# --- outside -----------------------------------------------------------------------------------------------------

[ "$(id -u)" = 0 ] || die 'must be root (namespaces, overlay, chroot)'
command -v debootstrap >/dev/null || die 'debootstrap is missing: run make setup'
[ $# != 0 ] || set -- demo test
[ -z "$(git status --porcelain --untracked-files=no)" ] || say 'note: uncommitted changes are not part of the trial (HEAD is)'

rm -rf build/fresh
mkdir -p .cache build/fresh
exec 9>.cache/fresh.lock
flock -n 9 || die 'another trial is running in this checkout'
work=$(mktemp -d "$PWD/.cache/fresh.XXXXXX")
child=
# shellcheck disable=SC2317 # called by trap
cleanup() {
  if [ -n "$child" ]; then
    kill "$child" 2>/dev/null || true
    wait "$child" || true
  fi
  # Mounts and processes have vanished with the namespaces; what remains is the directory.
  rm -rf --one-file-system "$work" || true
}
trap cleanup EXIT
trap 'exit 130' INT TERM

if [ ! -e "$debian_base/etc/debian_version" ]; then
  say "making the base system (about a minute, kept in .cache; log: build/fresh/debootstrap.log)"
fi
make_debian build/fresh/debootstrap.log || die 'debootstrap failed: see build/fresh/debootstrap.log'

start=$SECONDS rc=0
say "trying $(git rev-parse --short HEAD) on a clean Debian $(cat "$debian_base/etc/debian_version"): make $*"
timeout -k 10 "$limit" unshare --mount --pid --fork --kill-child --propagation private \
  "$0" --inside "$work" "$@" 9>&- </dev/null > >(tee build/fresh/log) 2>&1 &
child=$!
wait "$child" || rc=$?
child=
if [ "$rc" != 0 ]; then
  [ "$rc" != 124 ] || die "not done after $limit s"
  die "failed with $rc after $((SECONDS - start)) s (log: build/fresh/log)"
fi
say "passed in $((SECONDS - start)) s"
