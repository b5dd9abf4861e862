# shellcheck shell=bash
# Sourced by lint.sh and format.sh: which files are whose. Run from the top of the checkout.

c_sources() { find bpf-src e2e/tools -name '*.[ch]' -print0 | sort -z; }

shell_sources() {
  printf '.ci/run\0'
  find scripts e2e -name '*.sh' -print0 | sort -z
}

# Prettier reads .gitignore and .prettierignore itself; ESLint is given the directories that tsconfig.json includes.
export typescript_dirs=(plugin e2e scripts)
