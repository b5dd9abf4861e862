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
readonly suite=bookworm
readonly base=$PWD/.cache/debian-12-minbase
# What a person has on a machine before cloning; everything else is `make setup`'s job.
readonly prerequisites=ca-certificates,git,make

say() { printf 'test-fresh: %s\n' "$*"; }

die() {
  printf 'test-fresh: error: %s\n' "$*" >&2
  exit 1
}

# --- inside the new namespaces -----------------------------------------------------------------------------------

# copy_in ROOT PATH...: copies what exists of the given absolute paths to the same place under ROOT.
copy_in() {
  local root=$1 path
  shift
  for path; do
    [ -e "$path" ] || continue
    mkdir -p "$root$(dirname "$path")"
    # A directory's own entry exists already: copy its contents over it.
    if [ -d "$path" ]; then
      mkdir -p "$root$path"
      cp -rL "$path/." "$root$path/"
    else
      cp -L "$path" "$root$path"
    fi
  done
}

# The machine's way to its package sources: the names themselves never get into the repository.
copy_settings() {
  local root=$1 value
  rm -f "$root/etc/apt/sources.list" "$root"/etc/apt/sources.list.d/*
  copy_in "$root" /etc/hosts /etc/resolv.conf /etc/nsswitch.conf \
    /etc/apt/sources.list /etc/apt/sources.list.d /etc/apt/apt.conf /etc/apt/apt.conf.d /etc/apt/auth.conf \
    /etc/apt/auth.conf.d /etc/apt/preferences.d /etc/apt/trusted.gpg /etc/apt/trusted.gpg.d /etc/apt/keyrings \
    /usr/share/keyrings /usr/local/share/ca-certificates /etc/ssl/certs/ca-certificates.crt /etc/npmrc /root/.npmrc
  # npm's global file is elsewhere in other builds of npm; Debian's reads /etc/npmrc.
  value=$(npm config get globalconfig 2>/dev/null) || value=
  if [ -f "$value" ] && [ ! -e "$root/etc/npmrc" ]; then cp -L "$value" "$root/etc/npmrc"; fi
  while IFS='=' read -r _ value; do
    if [ -f "$value" ]; then copy_in "$root" "$value"; fi
  done < <(passed_environment)
}

# Proxy, certificate and npm settings of the environment, one NAME=VALUE per line.
passed_environment() {
  env | grep -E -i '^([a-z]+_proxy|npm_config_(registry|proxy|https_proxy|noproxy|cafile|strict_ssl)|[a-z_]*(ca_bundle|ca_certs|cainfo)|ssl_cert_(file|dir))=' || true
}

inside() {
  trap 'exit 143' TERM # the first process of a namespace ignores what it does not handle
  local work=$1 root=$1/root rc=0 settings
  shift
  mkdir -p "$work"/{upper,scratch,root}
  if ! mount -t overlay overlay -o "lowerdir=$base,upperdir=$work/upper,workdir=$work/scratch" "$root" 2>/dev/null; then
    # The checkout itself is on an overlay, which cannot be an upper layer: use memory.
    mount -t tmpfs -o size=8g tmpfs "$work/upper"
    mkdir "$work"/upper/{upper,scratch}
    mount -t overlay overlay -o "lowerdir=$base,upperdir=$work/upper/upper,workdir=$work/upper/scratch" "$root"
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

# The mirror that apt uses on this machine, else Debian's own.
mirror() {
  local url
  # shellcheck disable=SC2016 # apt fills REPO_URI in
  url=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' "Codename: $suite" 2>/dev/null | head -n 1) || url=
  printf '%s\n' "${url:-http://deb.debian.org/debian}"
}

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

if [ ! -e "$base/etc/debian_version" ]; then
  say "making the base system (about a minute, kept in .cache; log: build/fresh/debootstrap.log)"
  rm -rf "$base" "$base.new"
  timeout -k 10 900 debootstrap --variant=minbase --include="$prerequisites" "$suite" "$base.new" "$(mirror)" \
    >build/fresh/debootstrap.log 2>&1 </dev/null || die "debootstrap failed: see build/fresh/debootstrap.log"
  rm -f "$base.new"/var/cache/apt/archives/*.deb
  mv "$base.new" "$base"
fi

start=$SECONDS rc=0
say "trying $(git rev-parse --short HEAD) on a clean Debian $(cat "$base/etc/debian_version"): make $*"
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
