{{/* Labels of every object, as Antrea's separate products have them. */}}
{{- define "xmasq.labels" -}}
app: xmasq
{{- end }}

{{/* Where things are in the container. The node's bpf file system is not at its usual place: there the AppArmor profile that
runtimes give to containers lets nobody write. */}}
{{- define "xmasq.bpffs" -}}/bpffs{{- end }}
{{- define "xmasq.openvswitch" -}}/var/run/antrea/openvswitch{{- end }}
{{- define "xmasq.run" -}}/run/xmasq{{- end }}
{{- define "xmasq.config" -}}/etc/xmasq/xmasq.yaml{{- end }}
{{- define "xmasq.flowExportFiles" -}}/etc/xmasq/flow-export{{- end }}
{{- define "xmasq.flowAccountingFiles" -}}/etc/xmasq/flow-accounting{{- end }}

{{/* repository@digest or repository:tag. */}}
{{- define "xmasq.image" -}}
{{- $repository := required "image.repository is needed: no image of XMasq is published, see docs/installation.md" .Values.image.repository -}}
{{- if .Values.image.digest -}}
{{ $repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ $repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}
{{- end }}

{{/* A line of the configuration: the gate's value where it is given, else its default as a comment. Takes gates, name, default. */}}
{{- define "xmasq.featureGate" -}}
{{- if hasKey .gates .name }}
  {{ .name }}: {{ get .gates .name }}
{{- else }}
  # {{ .name }}: {{ .default }}
{{- end }}
{{- end }}

{{/* "true" or "false": the gate as the sidecar will see it. Takes root, name. */}}
{{- define "xmasq.gate" -}}
{{- $name := .name -}}
{{- $gates := .root.Values.featureGates -}}
{{- range .root.Files.Get "conf/feature-gates.yaml" | fromYamlArray -}}
{{- if eq .name $name -}}
{{- if hasKey $gates $name }}{{ get $gates $name }}
{{- else if hasKey $gates (printf "All%s" .stage) }}{{ get $gates (printf "All%s" .stage) }}
{{- else }}{{ .default }}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* Values that exclude each other. */}}
{{- define "xmasq.check" -}}
{{- if and .Values.serviceMonitor.enabled .Values.metrics.host }}
{{- fail "serviceMonitor.enabled needs metrics.host to be empty: Prometheus does not reach the node's loopback device" }}
{{- end }}
{{- if and .Values.prometheusRule.enabled (not .Values.serviceMonitor.enabled) }}
{{- fail "prometheusRule.enabled needs serviceMonitor.enabled: alerts without metrics never fire" }}
{{- end }}
{{- if and .Values.flowExport.destination.enabled (ne "true" (include "xmasq.gate" (dict "root" . "name" "FlowExport"))) }}
{{- fail "flowExport.destination.enabled needs featureGates.FlowExport: else nobody listens where antrea-agent sends its records" }}
{{- end }}
{{- end }}

{{/* Annotations of what lives only while `helm uninstall` waits. Takes the weight: what has less is made before. */}}
{{- define "xmasq.uninstallHook" -}}
helm.sh/hook: pre-delete
helm.sh/hook-weight: {{ . | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end }}

{{/* What the container may do: load, pin and attach programs, read and steer conntrack. UID 0 owns the pins and Antrea's socket. */}}
{{- define "xmasq.securityContext" -}}
runAsUser: 0
privileged: false
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
  add: [BPF, NET_ADMIN, PERFMON]
{{- end }}

{{/* What `run` and `cleanup` have in common. */}}
{{- define "xmasq.containerRest" -}}
env:
  - name: NODE_NAME
    valueFrom:
      fieldRef:
        fieldPath: spec.nodeName
resources:
  {{- toYaml .Values.resources | nindent 2 }}
securityContext:
  {{- include "xmasq.securityContext" . | nindent 2 }}
volumeMounts:
  - name: config
    mountPath: {{ include "xmasq.config" . }}
    subPath: xmasq.yaml
    readOnly: true
  - name: bpffs
    mountPath: {{ include "xmasq.bpffs" . }}
  # Enough to connect to the socket.
  - name: openvswitch
    mountPath: {{ include "xmasq.openvswitch" . }}
    readOnly: true
  - name: run
    mountPath: {{ include "xmasq.run" . }}
  {{- if eq "true" (include "xmasq.gate" (dict "root" . "name" "FlowExport")) }}
  - name: flow-export
    mountPath: {{ include "xmasq.flowExportFiles" . }}
    readOnly: true
  {{- end }}
  {{- if eq "true" (include "xmasq.gate" (dict "root" . "name" "FlowAccounting")) }}
  - name: flow-accounting
    mountPath: {{ include "xmasq.flowAccountingFiles" . }}
    readOnly: true
  {{- end }}
{{- end }}
