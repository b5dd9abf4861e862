#!/bin/bash
# XMasq beside Antrea in a kind cluster, end to end: makes the cluster (setup.sh), installs image and chart, runs the specs of
# e2e/specs-kind, uninstalls the chart, looks whether the nodes are clean, and removes the cluster, however it went. What a
# report about a failure needs is then in build/kind/support.
#
#   e2e/kind/test.sh [NAME] [OPTION...] [-- JEST_ARGUMENT...]
#     NAME                   of the cluster; default xmasq
#     --setup-only           ends when XMasq runs; the cluster stays
#     --test-only            nothing but the specs, in a cluster that --setup-only left; it stays
#     --cleanup-only         nothing but removing the cluster
#     --image-archive FILE   OCI archive of XMasq's image; default build/image/xmasq-ARCHITECTURE.tar
#     --encap-mode, --ip-family, --num-workers, --antrea-version, --k8s-version: of the cluster, see e2e/kind/setup.sh
#
# Needs a build (make build), the archive (make image), and what docs/kind.md names.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=e2e/kind/common.sh
. e2e/kind/common.sh

readonly namespace=kube-system

name=xmasq mode=all archive='' setup_options=()
if [ $# != 0 ] && [[ $1 != -* ]]; then
  name=$1
  shift
fi
valid_name "$name"
while [ $# != 0 ]; do
  case $1 in
    --setup-only | --test-only | --cleanup-only)
      [ "$mode" = all ] || wrong_usage "$1 and another --...-only"
      mode=${1#--}
      shift
      ;;
    --image-archive)
      argument "$@"
      archive=$2
      shift 2
      ;;
    --encap-mode | --ip-family | --num-workers | --antrea-version | --k8s-version)
      argument "$@"
      setup_options+=("$1" "$2")
      shift 2
      ;;
    --)
      shift
      break
      ;;
    *) wrong_usage "unknown option $1" ;;
  esac
done
jest_arguments=("$@")
case $mode in
  test-only | cleanup-only)
    if [ ${#setup_options[@]} != 0 ] || [ -n "$archive" ]; then wrong_usage "--$mode makes no cluster: no options of it"; fi
    ;;
esac
case $(uname -m) in
  aarch64 | arm64) archive=${archive:-build/image/xmasq-arm64.tar} ;;
  *) archive=${archive:-build/image/xmasq-amd64.tar} ;;
esac

readonly in_cluster=(kubectl --context "kind-$name" --namespace "$namespace")
readonly in_helm=(--kube-context "kind-$name" --namespace "$namespace")

readonly take_file='const fs = require("node:fs"); fs.writeSync(1, fs.readFileSync(process.argv[1])); fs.unlinkSync(process.argv[1])'

# What a report needs. Takes what can be had: it must not hide the failure that it is about.
collect_support() {
  local directory pod file=/run/xmasq/e2e-support.tar.gz
  directory=build/kind/support/$name-$(date +%Y%m%dT%H%M%S)
  mkdir -p "$directory"
  say "collecting what there is to know in $directory"
  {
    timeout 60 "${in_cluster[@]}" get nodes,pods,services --all-namespaces -o wide >"$directory/objects.txt"
    timeout 60 "${in_cluster[@]}" get events --all-namespaces --sort-by=.lastTimestamp >"$directory/events.txt"
    timeout 60 "${in_cluster[@]}" describe nodes >"$directory/nodes.txt"
    timeout 60 "${in_cluster[@]}" describe pods -l app=xmasq >"$directory/xmasq.txt"
    for pod in $(timeout 60 "${in_cluster[@]}" get pods -l app=xmasq -o name); do
      # The container can write nowhere else, and there is room for 1 MiB: few flows. The image may have no other programs.
      timeout 90 "${in_cluster[@]}" exec "$pod" -c xmasq-agent -- xmasq support-bundle --file "$file" --flows 200
      timeout 60 "${in_cluster[@]}" exec "$pod" -c xmasq-agent -- node -e "$take_file" "$file" >"$directory/${pod#pod/}.tar.gz"
    done
    # The logs of every container, XMasq's and Antrea's, too.
    timeout 180 kind export logs "$directory/kind" --name "$name"
  } 2>>"$directory/errors.txt" || true
}

# shellcheck disable=SC2317 # called by trap
at_end() {
  local rc=$?
  trap - EXIT
  set +e
  if [ "$rc" != 0 ] && cluster_exists "$name"; then collect_support; fi
  case $mode in
    all) e2e/kind/setup.sh destroy "$name" ;;
    *) if cluster_exists "$name"; then say "cluster $name stays; e2e/kind/test.sh $name --cleanup-only removes it"; fi ;;
  esac
  exit "$rc"
}

need_files() {
  [ -x build/tools/rr ] || die 'there is no build/tools/rr: run make build'
  [ -e node_modules/jest/bin/jest.js ] || die 'the npm packages are not installed: run make setup'
}

# The name that a node has for the image just loaded: what the archive says, as containerd writes it.
loaded_image() { # NODE
  local images=()
  mapfile -t images < <(docker exec "$1" ctr --namespace k8s.io images list --quiet | grep -E '(^|/)xmasq:[^@]+$')
  case ${#images[@]} in
    0) die "$1 knows no image xmasq:TAG after loading $archive: the archive must have the whole name (org.opencontainers.image.ref.name)" ;;
    1) printf '%s\n' "${images[0]}" ;;
    *) die "$1 has several images of XMasq (${images[*]}): make the cluster anew" ;;
  esac
}

install() {
  local image nodes
  mapfile -t nodes < <(cluster_nodes "$name")
  step 600 "loading $archive into the nodes" kind load image-archive "$archive" --name "$name"
  image=$(loaded_image "${nodes[0]}")
  say "installing XMasq, $image"
  step 120 'installing the chart' helm install xmasq charts/xmasq "${in_helm[@]}" --set featureGates.XMasq=true \
    --set "image.repository=${image%:*}" --set "image.tag=${image##*:}" --set image.pullPolicy=Never
  # All pods are new, so all start at once; each is ready when it has heard from every source.
  step 310 "starting XMasq (${in_cluster[*]} describe pods -l app=xmasq says why)" \
    "${in_cluster[@]}" rollout status daemonset/xmasq --timeout=300s
}

# Of the cluster's pods, as the specs want to know it.
ip_family() {
  local cidrs
  cidrs=$("${in_cluster[@]}" get nodes -o 'jsonpath={.items[0].spec.podCIDRs[*]}')
  case $cidrs in
    *:*.* | *.*:*) echo dual ;;
    *:*) echo ipv6 ;;
    *.*) echo ipv4 ;;
    *) die "the nodes of $name have no pod CIDRs" ;;
  esac
}

run_specs() {
  local family
  family=$(ip_family)
  XMASQ_KIND_CLUSTER=$name XMASQ_KIND_IP_FAMILY=$family scripts/jest.sh kind "${jest_arguments[@]}"
}

# As a user would; the hook of the chart waits for all nodes.
uninstall() {
  local node nodes
  mapfile -t nodes < <(cluster_nodes "$name")
  say 'uninstalling XMasq'
  step 330 'uninstalling the chart' helm uninstall xmasq "${in_helm[@]}" --timeout 5m
  for node in "${nodes[@]}"; do
    docker exec "$node" test ! -e /sys/fs/bpf/xmasq || die "$node: the uninstallation left pins in /sys/fs/bpf/xmasq"
  done
}

if [ "$mode" = cleanup-only ]; then exec e2e/kind/setup.sh destroy "$name"; fi

need_programs
[ "$mode" = setup-only ] || need_files
if [ "$mode" = test-only ]; then
  cluster_exists "$name" || die "there is no cluster $name: e2e/kind/test.sh $name --setup-only"
else
  [ -e "$archive" ] || die "there is no $archive: run make image, or name another one by --image-archive"
  ! cluster_exists "$name" || die "there is a cluster $name already: --test-only uses it, --cleanup-only removes it"
fi

mkdir -p build/kind
log=build/kind/$name-test.log
: >"$log"
trap at_end EXIT
trap 'exit 130' INT TERM

if [ "$mode" != test-only ]; then
  e2e/kind/setup.sh create "$name" "${setup_options[@]}"
  install
fi
if [ "$mode" != setup-only ]; then run_specs; fi
if [ "$mode" = all ]; then uninstall; fi
