#!/bin/bash
# Makes a container's view of the machine in the mount and network namespaces that it runs in (unshare --mount --net
# --propagation private): the machine's files, read-only, and MOUNTs. Says "ready" and stays until it is ended.
#
#   container-root.sh DIRECTORY MOUNT...     MOUNT: SOURCE:TARGET:ro|rw; SOURCE bpf or tmpfs: a new file system
#
# The container's root is DIRECTORY/root, for chroot.
set -euo pipefail
directory=$1
shift
readonly root=$directory/root

mount -t tmpfs tmpfs "$directory"
mkdir "$directory/upper" "$directory/work" "$root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$directory/upper,workdir=$directory/work" "$root"
mount --rbind /proc "$root/proc"
mount --rbind /dev "$root/dev"
mount --bind /sys "$root/sys"
mount -o remount,ro,bind "$root/sys"
for mount in "$@"; do
  IFS=: read -r source target mode <<<"$mount"
  # Links, such as /var/run, lead somewhere in the container.
  target=$(chroot "$root" realpath -m "$target")
  if [ -f "$source" ]; then
    mkdir -p "$(dirname "$root$target")"
    : >"$root$target"
  else
    mkdir -p "$root$target"
  fi
  case $source in
    bpf | tmpfs) mount -t "$source" "$source" "$root$target" ;;
    *) mount --bind "$source" "$root$target" ;;
  esac
  [ "$mode" = rw ] || mount -o remount,ro,bind "$root$target"
done
mount -o remount,ro "$root"
ip link set lo up
echo ready
exec sleep infinity
