#!/bin/bash
# Checks .github/workflows with actionlint, and their shell with shellcheck; says at the end what was checked. `make test` does
# not need it.
#
#   scripts/workflow-check.sh
#
# actionlint is put below .cache/workflow-tools at the first run, in a pinned version, built by Go. ACTIONLINT names another one.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/go-tool.sh
. scripts/go-tool.sh

readonly actionlint_version=v1.7.12
readonly tools=$PWD/.cache/workflow-tools
readonly workflows=(.github/workflows/*.yml)

die() {
  printf 'workflow-check: error: %s\n' "$*" >&2
  exit 1
}

# What others choose (a title, a branch's name) would become a part of the script that it stands in: values come by the environment.
no_expressions() {
  # shellcheck disable=SC2016 # for awk, which looks for expressions of the workflow
  ! awk '
    FNR == 1 { inside = 0 }
    inside && NF {
      match($0, /^ */)
      if (RLENGTH <= indent) inside = 0
    }
    /^ *(- )?run:/ {
      match($0, /^ */)
      indent = RLENGTH
      inside = 1
    }
    inside && index($0, "${{") { print FILENAME ":" FNR ": " $0 }
  ' "${workflows[@]}" | grep .
}

[ $# = 0 ] || {
  echo 'usage: scripts/workflow-check.sh' >&2
  exit 2
}
command -v shellcheck >/dev/null || die 'there is no shellcheck in PATH: run make setup'
mkdir -p "$tools"
actionlint=${ACTIONLINT:-$(go_tool "$tools" github.com/rhysd/actionlint/cmd/actionlint "$actionlint_version" actionlint)}

"$actionlint" -shellcheck "$(command -v shellcheck)" -pyflakes '' "${workflows[@]}" || die 'actionlint found what is above'
no_expressions || die 'expressions in a script, above: put them into env, and use the variable'
printf 'workflow-check: %d workflows, with actionlint %s; what GitHub makes of them was not checked\n' "${#workflows[@]}" \
  "$("$actionlint" -version | head -n 1)"
