# shellcheck shell=bash
# Sourced by scripts that need programs which Go builds, in pinned versions. They define `die`, which says why and ends them.

# need_go WHAT: fails where there is no Go.
need_go() {
  command -v go >/dev/null || die "$1 needs Go 1.26 or later, and there is no go in PATH"
}

# go_tool DIRECTORY PACKAGE VERSION NAME: prints the path of the program; builds it below DIRECTORY (absolute) if it is not there.
go_tool() {
  local directory=$1/$4-$3
  if [ ! -x "$directory/$4" ]; then
    need_go "building $4 (or set ${4^^} to one that you have)"
    printf '%s: building %s %s ...\n' "$(basename "$0" .sh)" "$4" "$3" >&2
    GOBIN=$directory go install -trimpath "$2@$3" >&2 || die "$4 $3 could not be built"
  fi
  echo "$directory/$4"
}
