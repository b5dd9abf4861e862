#!/bin/bash
# Builds the container image from the Dockerfile with Debian's buildah, as root, without a Docker engine.
#
#   ARCH=amd64|arm64 scripts/image.sh      default: amd64
#
# Its build stage runs on a minimal Debian 12 (debootstrap) with this machine's settings of apt and npm; of it only the
# libraries' packages are in the image. Results, in build/image: xmasq-ARCH.tar (an archive of one OCI image), its digest,
# list of parts, and unpacked root directory. The same sources, Debian packages and buildah give the same digest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/clean-debian.sh
. scripts/clean-debian.sh

readonly arch=${ARCH:-amd64} out=build/image
readonly limit=1800 # seconds
readonly base=localhost/xmasq-base image=localhost/xmasq:$arch
# Its own store: what the machine has of images is not touched, and goes with the checkout.
readonly store=(--root "$PWD/.cache/images" --runroot "$PWD/.cache/images-run" --storage-driver vfs)

die() {
  printf 'image: error: %s\n' "$*" >&2
  exit 1
}

say() { printf 'image: %s\n' "$*"; }

buildah_() { timeout -k 10 "$limit" buildah "${store[@]}" "$@"; }

case $arch in
  amd64 | arm64) ;;
  *) die "ARCH=$arch: amd64 and arm64 are what images can be made for" ;;
esac
[ "$(id -u)" = 0 ] || die 'must be root (chroot)'
for program in buildah debootstrap; do
  command -v "$program" >/dev/null || die "$program is missing: run make image, which installs it"
done

mkdir -p .cache "$out"
exec 9>.cache/image.lock
flock -n 9 || die 'another image is being built in this checkout'
log=$out/build-$arch.log
work=$(mktemp -d "$PWD/.cache/image.XXXXXX")
containers=()
# shellcheck disable=SC2317 # called by trap
cleanup() {
  local container
  for container in "${containers[@]}"; do buildah_ rm "$container" >/dev/null 2>&1 || true; done
  rm -rf --one-file-system "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# failed WHAT: shows the end of the log.
failed() {
  tail -n 25 "$log" >&2
  die "$1 (last lines above, whole log: $log)"
}

: >"$log"
if ! buildah_ inspect --type image "$base" >/dev/null 2>&1; then
  say 'making the base of the build stage (a minute, kept in .cache)'
  make_debian "$log" || failed 'debootstrap failed'
  cp -a "$debian_base" "$work/base"
  copy_settings "$work/base"
  tar -C "$work/base" -cf "$work/base.tar" .
  container=$(buildah_ from scratch 2>>"$log")
  containers+=("$container")
  {
    buildah_ add "$container" "$work/base.tar" /
    buildah_ config --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$container"
    while IFS= read -r setting; do buildah_ config --env "$setting" "$container"; done < <(passed_environment)
    buildah_ commit --rm "$container" "$base"
  } >>"$log" 2>&1 </dev/null || failed 'the base could not be made'
  containers=()
  rm -rf "$work"/base*
fi

# A file's time says nothing but which commit it is of; a tree without history has none.
epoch=$(git log -1 --format=%ct 2>/dev/null) || epoch=0
revision=$(git rev-parse HEAD 2>/dev/null) || revision=
[ -z "$revision" ] || [ -z "$(git status --porcelain --untracked-files=no)" ] || revision=$revision-dirty
version=$(sed -n 's/^  "version": "\(.*\)",$/\1/p' package.json)
say "building $version for $arch (some minutes; log: $log)"
buildah_ bud --isolation chroot --pull-never --layers=false --timestamp "$epoch" --platform "linux/$arch" \
  --build-arg "BASE=$base" --build-arg "TARGETARCH=$arch" --build-arg "SOURCE_DATE_EPOCH=$epoch" \
  --build-arg "VERSION=$version" --build-arg "REVISION=$revision" --tag "$image" . >>"$log" 2>&1 </dev/null 9>&- ||
  failed 'the image could not be built'

rm -rf "$out/xmasq-$arch.tar" "$out/root-$arch"
buildah_ push --digestfile "$out/xmasq-$arch.digest" "$image" "oci-archive:$out/xmasq-$arch.tar:localhost/xmasq:$version" \
  >>"$log" 2>&1 </dev/null || failed 'the image could not be written'
container=$(buildah_ from --pull-never --platform "linux/$arch" "$image" 2>>"$log")
containers+=("$container")
cp -a "$(buildah_ mount "$container")" "$out/root-$arch"
cp "$out/root-$arch/usr/share/doc/xmasq/sbom.spdx.json" "$out/xmasq-$arch.spdx.json"
say "$out/xmasq-$arch.tar: $(cat "$out/xmasq-$arch.digest"), $(du -sm "$out/root-$arch" | cut -f 1) MB, packed $(du -m "$out/xmasq-$arch.tar" | cut -f 1) MB"
