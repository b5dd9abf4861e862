#!/bin/bash
# A minimal Debian 12 of our own, for scripts that try or build something on a clean machine (sourced; needs root for
# make_debian and the packages debootstrap and apt).

readonly debian_suite=bookworm
readonly debian_base=$PWD/.cache/debian-12-minbase
# What a person has on a machine before cloning; everything else is `make setup`'s job.
readonly debian_prerequisites=ca-certificates,git,make

# The mirror that apt uses on this machine, else Debian's own.
mirror() {
  local url
  # shellcheck disable=SC2016 # apt fills REPO_URI in
  url=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' "Codename: $debian_suite" 2>/dev/null | head -n 1) || url=
  printf '%s\n' "${url:-http://deb.debian.org/debian}"
}

# make_debian LOG: the tree $debian_base, kept once it is made (a minute). Returns non-zero, with the reasons in LOG, where it cannot be.
make_debian() {
  [ ! -e "$debian_base/etc/debian_version" ] || return 0
  rm -rf "$debian_base" "$debian_base.new"
  timeout -k 10 900 debootstrap --variant=minbase --include="$debian_prerequisites" "$debian_suite" "$debian_base.new" "$(mirror)" \
    >"$1" 2>&1 </dev/null || return
  rm -f "$debian_base.new"/var/cache/apt/archives/*.deb
  mv "$debian_base.new" "$debian_base"
}

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
