# shellcheck shell=bash
# Sourced by setup.sh and test.sh: what both need. Messages begin with the name of the script that runs.

# What these scripts were written for.
export KIND_VERSION=v0.32.0 HELM_VERSION=v4.1.4 ANTREA_VERSION=2.7.0

# Where the tools' output goes; who sources this names a file.
log=/dev/null

say() { printf '%s: %s\n' "${0##*/}" "$*"; }

die() {
  printf '%s: error: %s\n' "${0##*/}" "$*" >&2
  exit 1
}

# wrong_usage TEXT: the text and where the usage is, exit code 2.
wrong_usage() {
  printf '%s: %s; the comment at the top of %s says more\n' "${0##*/}" "$*" "$0" >&2
  exit 2
}

# argument OPTION VALUE...: fails unless a value follows the option.
argument() {
  if [ $# -lt 2 ] || [ -z "$2" ]; then wrong_usage "$1 needs a value"; fi
}

# step SECONDS WHAT COMMAND...: runs COMMAND, with its output in the log. The script ends if it fails or takes longer.
step() {
  local limit=$1 what=$2 rc=0
  shift 2
  timeout --foreground -k 10 "$limit" "$@" </dev/null >>"$log" 2>&1 || rc=$?
  case $rc in
    0) ;;
    124 | 137) die "$what: not done after $limit s (output: $log)" ;;
    *) die "$what: failed with $rc (output: $log)" ;;
  esac
}

# valid_name NAME: one that kind, Docker and Kubernetes take, also with "-control-plane" behind it.
valid_name() {
  [[ $1 =~ ^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$ ]] ||
    wrong_usage "NAME is \"$1\"; expected up to 32 lower-case letters, digits and hyphens"
}

# Fails unless the programs that are called are there; says which are not, and where they come from.
need_programs() {
  local missing=()
  command -v docker >/dev/null || missing+=('docker (https://docs.docker.com/engine/install/)')
  command -v kind >/dev/null || missing+=("kind (go install sigs.k8s.io/kind@$KIND_VERSION)")
  command -v kubectl >/dev/null || missing+=('kubectl (https://kubernetes.io/docs/tasks/tools/)')
  command -v helm >/dev/null || missing+=("helm (go install helm.sh/helm/v4/cmd/helm@$HELM_VERSION)")
  [ ${#missing[@]} = 0 ] || die "not in PATH: $(printf '%s; ' "${missing[@]}")docs/kind.md says what is needed"
  timeout --foreground 30 docker info >/dev/null 2>&1 ||
    die 'the Docker daemon does not answer: start it, or become a member of its group'
}

cluster_exists() { kind get clusters 2>/dev/null | grep -qxF -- "$1"; }

# cluster_nodes NAME: its containers, one a line, the control plane's too.
cluster_nodes() { kind get nodes --name "$1" 2>/dev/null; }
