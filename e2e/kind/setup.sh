#!/bin/bash
# Makes or removes a kind cluster with Antrea, for e2e/kind/test.sh and for people. Nothing of XMasq is in it, but its nodes
# have what XMasq needs: a bpf file system each.
#
#   e2e/kind/setup.sh create NAME [OPTION...]
#     --encap-mode encap|noEncap|hybrid  Antrea's trafficEncapMode; default encap
#     --ip-family ipv4|ipv6|dual         of pods, Services and nodes; default ipv4
#     --num-workers N                    besides the control plane, 2 to 16; default 2
#     --antrea-version V                 release of Antrea's Helm chart; default: ANTREA_VERSION in e2e/kind/common.sh
#     --k8s-version V                    tag of the image kindest/node; default: that of kind's release
#   e2e/kind/setup.sh destroy NAME
#
# The context of kubectl is kind-NAME. A cluster that could not be finished stays, for a look; destroy removes it.
# What the machine must have: docs/kind.md. Output of the tools: build/kind/NAME.log.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=e2e/kind/common.sh
. e2e/kind/common.sh

readonly antrea_charts=https://charts.antrea.io

# All nodes are on the kernel of this machine: what it lacks, they lack.
check_kernel() {
  local release major minor module modinfo
  if [ "$(uname -s)" != Linux ]; then
    say 'note: the nodes are on the kernel of a virtual machine, which is not looked at here'
    return
  fi
  release=$(uname -r)
  modinfo=$(PATH=$PATH:/usr/sbin:/sbin command -v modinfo) || modinfo=
  for module in openvswitch geneve; do
    # Without modinfo there is nobody to ask: antrea-agent will say so.
    [ -d "/sys/module/$module" ] || [ -z "$modinfo" ] || "$modinfo" "$module" >/dev/null 2>&1 ||
      die "the kernel $release has no module $module, which Antrea needs: install it (Ubuntu: linux-modules-extra-$release)"
  done
  [ -e /sys/kernel/btf/vmlinux ] || die "the kernel $release has no BTF (/sys/kernel/btf/vmlinux): XMasq cannot be loaded"
  IFS=.- read -r major minor _ <<<"$release"
  if [ "$major" -lt 6 ] || { [ "$major" = 6 ] && [ "$minor" -lt 1 ]; }; then
    die "the kernel $release is older than 6.1, the oldest that XMasq works on"
  fi
  if [ "$major" = 6 ] && [ "$minor" -lt 11 ]; then
    say "note: before 6.11 (this is $release) XMasq admits flows by approvals, and none of a Service"
  fi
}

write_configuration() { # FILE FAMILY WORKERS
  local i
  {
    cat <<EOT
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
networking:
  disableDefaultCNI: true
  ipFamily: $2
  # The search domains of this machine would be asked for over the wrong family, or not at all.
  dnsSearch: []
nodes:
  - role: control-plane
EOT
    for ((i = 0; i < $3; i++)); do echo '  - role: worker'; done
  } >"$1"
}

# Nobody else mounts one in a node, and XMasq's pods may not. Each mount makes a file system of its own. Two nodes in one would
# take each other's pins for theirs: they have the same names.
mount_bpffs() { # NODE...
  local node device
  local -A owners=()
  device=$(stat -c %d /sys/fs/bpf 2>/dev/null) || device=none
  owners[$device]='this machine'
  for node; do
    step 30 "$node: mounting a bpf file system at /sys/fs/bpf" docker exec "$node" mount -t bpf -o mode=0700 bpf /sys/fs/bpf
    [ "$(docker exec "$node" stat -f -c %T /sys/fs/bpf)" = bpf_fs ] || die "$node: what is at /sys/fs/bpf is no bpf file system"
    device=$(docker exec "$node" stat -c %d /sys/fs/bpf)
    [ -z "${owners[$device]:-}" ] || die "$node has the bpf file system of ${owners[$device]}: XMasq needs one for each node"
    owners[$device]=$node
  done
}

# For the captures of the specs. The image of the nodes is Debian's.
install_tcpdump() { # NODE
  ! docker exec "$1" sh -c 'command -v tcpdump' >/dev/null 2>&1 || return 0
  step 300 "$1: installing tcpdump from Debian" docker exec -e DEBIAN_FRONTEND=noninteractive "$1" \
    sh -c 'apt-get -q update && apt-get -q -y install --no-install-recommends tcpdump'
}

create() {
  local name=$1 encap=encap family=ipv4 workers=2 antrea=$ANTREA_VERSION image=() nodes=() node configuration
  shift
  while [ $# != 0 ]; do
    argument "$@"
    case $1 in
      --encap-mode) encap=$2 ;;
      --ip-family) family=$2 ;;
      --num-workers) workers=$2 ;;
      --antrea-version) antrea=${2#v} ;;
      --k8s-version) image=(--image "kindest/node:v${2#v}") ;;
      *) wrong_usage "unknown option $1" ;;
    esac
    shift 2
  done
  case $encap in
    encap | noEncap | hybrid) ;;
    *) wrong_usage "--encap-mode is \"$encap\"; expected encap, noEncap or hybrid" ;;
  esac
  case $family in
    ipv4 | ipv6 | dual) ;;
    *) wrong_usage "--ip-family is \"$family\"; expected ipv4, ipv6 or dual" ;;
  esac
  [[ $workers =~ ^([2-9]|1[0-6])$ ]] || wrong_usage "--num-workers is \"$workers\"; expected 2 to 16"

  need_programs
  check_kernel
  ! cluster_exists "$name" || die "there is a cluster $name already: e2e/kind/setup.sh destroy $name"

  mkdir -p build/kind
  log=build/kind/$name.log
  : >"$log"
  configuration=build/kind/$name.yaml
  write_configuration "$configuration" "$family" "$workers"

  say "making cluster $name: $workers workers, $family (output: $log)"
  # It is not waited for nodes: none is ready before Antrea is there.
  step 600 "making cluster $name" kind create cluster --name "$name" --config "$configuration" "${image[@]}"
  mapfile -t nodes < <(cluster_nodes "$name")
  [ ${#nodes[@]} = $((workers + 1)) ] || die "kind made ${#nodes[@]} nodes instead of $((workers + 1)) (output: $log)"
  mount_bpffs "${nodes[@]}"
  for node in "${nodes[@]}"; do install_tcpdump "$node"; done

  say "installing Antrea $antrea, $encap"
  local in_cluster=(kubectl --context "kind-$name" --namespace kube-system)
  local look="${in_cluster[*]} describe pods -l app=antrea says why"
  step 180 "installing Antrea's chart $antrea from $antrea_charts" helm install antrea antrea --repo "$antrea_charts" \
    --version "$antrea" --kube-context "kind-$name" --namespace kube-system --set "trafficEncapMode=$encap"
  # The images come from a public registry meanwhile.
  step 610 "starting antrea-agent ($look)" "${in_cluster[@]}" rollout status daemonset/antrea-agent --timeout=600s
  step 310 "starting antrea-controller ($look)" "${in_cluster[@]}" rollout status deployment/antrea-controller --timeout=300s
  step 310 'waiting for the nodes' "${in_cluster[@]}" wait --for=condition=Ready node --all --timeout=300s
  step 310 'waiting for CoreDNS' "${in_cluster[@]}" rollout status deployment/coredns --timeout=300s
  say "cluster $name is ready: kubectl --context kind-$name get nodes"
}

destroy() {
  local name=$1
  [ $# = 1 ] || wrong_usage "destroy takes a NAME and nothing else"
  command -v kind >/dev/null || die "kind is not in PATH (go install sigs.k8s.io/kind@$KIND_VERSION)"
  # The nodes' bpf file systems and all that is pinned there go with the containers. No such cluster: kind does nothing.
  log=/dev/stderr
  step 180 "removing cluster $name" kind delete cluster --name "$name"
  rm -f "build/kind/$name.yaml"
}

action=${1:-}
case $action in
  create | destroy) ;;
  *) wrong_usage 'expected create or destroy' ;;
esac
shift
[ $# != 0 ] || wrong_usage "$action needs a NAME"
valid_name "$1"
case $action in
  create) create "$@" ;;
  destroy) destroy "$@" ;;
esac
