#!/bin/busybox sh
# shellcheck shell=dash
# First process of the guest: mounts the host's root read-only with a throw-away layer on top, then becomes the command
# agent. Parameters come from the kernel command line:
#   xmasq.modules=DIR  directory that holds the extracted package's lib/modules/RELEASE (a path on the host)
#   xmasq.project=DIR  the checkout; bound again when it lies below a directory that gets a fresh tmpfs here
/bin/busybox --install -s /bin
export PATH=/bin
fail() {
  echo "micro-vm init: $*" >/dev/console
  sync
  poweroff -f
}

mount -t proc proc /proc || fail "mount /proc"
mount -t sysfs sysfs /sys || fail "mount /sys"
mount -t devtmpfs devtmpfs /dev || fail "mount /dev"

# In dependency order; a module may be built in already under another name, so one failure is told but is not the end.
while read -r module; do
  insmod "/modules/$module" || echo "micro-vm init: insmod $module failed" >/dev/console
done </modules/order

# shellcheck disable=SC2013 # words, not lines
for word in $(cat /proc/cmdline); do
  case "$word" in
    xmasq.modules=*) modules=${word#*=} ;;
    xmasq.project=*) project=${word#*=} ;;
  esac
done

# cache=loose: the lower layer never changes for us while we run, and node reads 120 MB at its first start.
mount -t 9p -o trans=virtio,version=9p2000.L,ro,msize=512000,cache=loose root /lower || fail "mount the host's root over 9p"
if ! mount -t tmpfs tmpfs /upper || ! mkdir /upper/data /upper/work; then fail "mount the writable layer"; fi
mount -t overlay -o lowerdir=/lower,upperdir=/upper/data,workdir=/upper/work overlay /root || fail "mount the overlay"

mkdir -p /root/proc /root/sys /root/dev /root/run /root/tmp /root/usr/lib/modules
mount -t tmpfs -o mode=0755 tmpfs /root/run
mount -t tmpfs -o mode=1777 tmpfs /root/tmp
case "$project" in
  /tmp/* | /run/*)
    mkdir -p "/root$project" /upper/project /upper/project-work || fail "make room for $project"
    mount -t overlay -o "lowerdir=/lower$project,upperdir=/upper/project,workdir=/upper/project-work" overlay \
      "/root$project" || fail "overlay on $project"
    ;;
esac
mount --bind "/lower$modules" /root/usr/lib/modules || fail "bind $modules on /lib/modules"

mount --move /dev /root/dev
mkdir -p /root/dev/pts /root/dev/shm
mount -t devpts devpts /root/dev/pts
mount -t tmpfs -o mode=1777 tmpfs /root/dev/shm
mount --move /proc /root/proc
mount --move /sys /root/sys
mount -t bpf bpffs /root/sys/fs/bpf || fail "mount bpffs"
mount -t cgroup2 cgroup2 /root/sys/fs/cgroup
ip link set lo up
hostname microvm

mkdir -p /root/run/microvm
cp /agent /root/run/microvm/agent || fail "copy the agent"
exec switch_root /root /run/microvm/agent
