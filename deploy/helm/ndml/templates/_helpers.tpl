{{/* Names, labels and the parts that every pod shares. What a service is configured with stands in _config.tpl. */}}

{{- define "ndml.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Component's key in values: memory-node is memoryNode. */}}
{{- define "ndml.key" -}}{{ eq . "memory-node" | ternary "memoryNode" . }}{{- end -}}

{{/* Component's name in environment variables and modules: memory-node is memory_node. */}}
{{- define "ndml.module" -}}{{ replace "-" "_" . }}{{- end -}}

{{- define "ndml.env" -}}NDML_{{ replace "-" "_" . | upper }}__{{- end -}}

{{- define "ndml.port" -}}
{{- get (dict "gateway" 7700 "memory-node" 7710 "consensus" 7720 "llm" 7730) . -}}
{{- end -}}

{{- define "ndml.version" -}}{{ default .Chart.AppVersion .Values.image.tag }}{{- end -}}

{{/* [root, component] */}}
{{- define "ndml.selector" -}}
app.kubernetes.io/name: {{ default (index . 0).Chart.Name (index . 0).Values.nameOverride }}
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
{{- with index . 1 }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end -}}

{{/* [root, component] */}}
{{- define "ndml.labels" -}}
{{- $root := index . 0 -}}
{{ include "ndml.selector" . }}
app.kubernetes.io/version: {{ include "ndml.version" $root | quote }}
app.kubernetes.io/part-of: ndml
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* [root, component]: registry/repository:tag, or @digest where one is pinned. */}}
{{- define "ndml.image" -}}
{{- $root := index . 0 -}}
{{- $own := (index $root.Values (include "ndml.key" (index . 1))).image -}}
{{- include "ndml.imageOf" (list $root.Values.image.registry $own.repository (default (include "ndml.version" $root) $own.tag) $own.digest) -}}
{{- end -}}

{{/* [registry, repository, tag, digest] */}}
{{- define "ndml.imageOf" -}}
{{- $name := ternary (printf "%s/%s" (index . 0) (index . 1)) (index . 1) (ne (index . 0) "") -}}
{{- if and (eq (toString (index . 2)) "latest") (not (index . 3)) -}}
{{- fail (printf "the tag of image %s is latest, which is another image tomorrow: give a version in image.tag, or a digest" $name) -}}
{{- end -}}
{{- if index . 3 -}}{{ printf "%s@%s" $name (index . 3) }}{{- else -}}{{ printf "%s:%s" $name (index . 2) }}{{- end -}}
{{- end -}}

{{/* Name under which peers find a pod of a StatefulSet. [root, component, ordinal] */}}
{{- define "ndml.podAddress" -}}
{{- $root := index . 0 -}}
{{- $name := printf "%s-%s" (include "ndml.fullname" $root) (index . 1) -}}
{{- printf "%s-%d.%s.%s.svc.%s:%s" $name (int (index . 2)) $name $root.Release.Namespace $root.Values.clusterDomain (include "ndml.port" (index . 1)) -}}
{{- end -}}

{{/* Does a pod of this component talk to the Kubernetes API? [root, component] "true" or "" */}}
{{- define "ndml.usesApi" -}}
{{- $values := (index . 0).Values -}}
{{- $component := index . 1 -}}
{{- if and (or $values.discovery.enabled $values.zones.fromNode) (ne $component "llm") -}}true
{{- else if and (eq $component "memory-node") $values.memoryNode.handOver.enabled -}}true
{{- else if and (eq $component "consensus") $values.consensus.lease.enabled -}}true
{{- end -}}
{{- end -}}

{{/* [root, component] */}}
{{- define "ndml.serviceAccount" -}}{{ include "ndml.fullname" (index . 0) }}-{{ index . 1 }}{{- end -}}

{{/* Restricted pod security, for every pod of the chart. */}}
{{- define "ndml.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "ndml.containerSecurity" -}}
allowPrivilegeEscalation: false
privileged: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* Native gRPC probes. With TLS they ask on the plain health port: the kubelet has no certificates. [root, component, probe, timing] */}}
{{- define "ndml.probe" -}}
{{- $port := int (include "ndml.port" (index . 1)) -}}
grpc:
  port: {{ (index . 0).Values.tls.enabled | ternary (add $port 2000) $port }}
  service: {{ index . 2 }}
{{ toYaml (index . 3) }}
{{- end -}}

{{/* [root, component] */}}
{{- define "ndml.probes" -}}
{{- $root := index . 0 -}}
{{- $probes := $root.Values.probes -}}
startupProbe:
  {{- include "ndml.probe" (list $root (index . 1) "liveness" $probes.startup) | nindent 2 }}
livenessProbe:
  {{- include "ndml.probe" (list $root (index . 1) "liveness" $probes.liveness) | nindent 2 }}
readinessProbe:
  {{- include "ndml.probe" (list $root (index . 1) "readiness" $probes.readiness) | nindent 2 }}
{{- end -}}

{{/* Where pods go: spread, apart, priority, selectors. [root, component] */}}
{{- define "ndml.scheduling" -}}
{{- $root := index . 0 -}}
{{- $own := index $root.Values (include "ndml.key" (index . 1)) -}}
{{- with $own.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- $gpu := default (dict "enabled" false) $own.gpu }}
{{- $tolerations := $own.tolerations }}
{{- if $gpu.enabled }}
{{- $tolerations = concat $tolerations $gpu.tolerations }}
{{- end }}
{{- with $tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if and $gpu.enabled $gpu.runtimeClassName }}
runtimeClassName: {{ $gpu.runtimeClassName }}
{{- end }}
{{- with default $root.Values.priorityClassName $own.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- if $own.affinity }}
affinity:
  {{- toYaml $own.affinity | nindent 2 }}
{{- else if ne $own.antiAffinity "off" }}
affinity:
  podAntiAffinity:
    {{- if eq $own.antiAffinity "hard" }}
    requiredDuringSchedulingIgnoredDuringExecution:
    - topologyKey: kubernetes.io/hostname
      labelSelector:
        matchLabels:
          {{- include "ndml.selector" . | nindent 10 }}
    {{- else }}
    preferredDuringSchedulingIgnoredDuringExecution:
    - weight: 100
      podAffinityTerm:
        topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels:
            {{- include "ndml.selector" . | nindent 12 }}
    {{- end }}
{{- end }}
{{- if $root.Values.topologySpread.enabled }}
topologySpreadConstraints:
- topologyKey: {{ $root.Values.topologySpread.key }}
  maxSkew: {{ $root.Values.topologySpread.maxSkew }}
  whenUnsatisfiable: {{ $root.Values.topologySpread.whenUnsatisfiable }}
  labelSelector:
    matchLabels:
      {{- include "ndml.selector" . | nindent 6 }}
{{- end }}
{{- end -}}

{{/* Head of a pod template: labels, annotations. [root, component] */}}
{{- define "ndml.podMetadata" -}}
{{- $root := index . 0 -}}
{{- $own := index $root.Values (include "ndml.key" (index . 1)) -}}
labels:
  # Without the chart's version: a new chart alone restarts nobody.
  {{- include "ndml.selector" . | nindent 2 }}
  app.kubernetes.io/part-of: ndml
  {{- with $root.Values.commonLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- with $own.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
annotations:
  kubectl.kubernetes.io/default-container: {{ index . 1 }}
  # A process reads its settings once: other settings, other pods.
  checksum/config: {{ include "ndml.config" . | sha256sum }}
  {{- if $root.Values.auth.tokens }}
  checksum/tokens: {{ toJson $root.Values.auth.tokens | sha256sum }}
  {{- end }}
  {{- with $own.podAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{/* Identity, pull secrets and security of a pod. [root, component] */}}
{{- define "ndml.podBase" -}}
{{- $root := index . 0 -}}
serviceAccountName: {{ include "ndml.serviceAccount" . }}
automountServiceAccountToken: {{ eq (include "ndml.usesApi" .) "true" }}
enableServiceLinks: false
terminationGracePeriodSeconds: {{ include "ndml.terminationGrace" . }}
{{- with $root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- include "ndml.podSecurity" $root | nindent 2 }}
{{- end -}}

{{/* What every container of a service has: image, command, ports, probes, security. [root, component] */}}
{{- define "ndml.containerBase" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- $own := index $root.Values (include "ndml.key" $component) -}}
{{- $port := int (include "ndml.port" $component) -}}
name: {{ $component }}
image: {{ include "ndml.image" . }}
imagePullPolicy: {{ $root.Values.image.pullPolicy }}
command: [python, -m, services.{{ include "ndml.module" $component }}]
args: [--config, /etc/ndml/config.yaml]
ports:
- {name: grpc, containerPort: {{ $port }}, protocol: TCP}
{{- if eq $component "gateway" }}
- {name: http, containerPort: 7780, protocol: TCP}
{{- end }}
- {name: metrics, containerPort: {{ add $port 1000 }}, protocol: TCP}
{{- if $root.Values.tls.enabled }}
- {name: health, containerPort: {{ add $port 2000 }}, protocol: TCP}
{{- end }}
{{ include "ndml.probes" . }}
resources:
  {{- include "ndml.resources" . | nindent 2 }}
securityContext:
  {{- include "ndml.containerSecurity" $root | nindent 2 }}
{{- end -}}

{{/* Requests and limits; of a GPU pod its GPUs too. [root, component] */}}
{{- define "ndml.resources" -}}
{{- $own := index (index . 0).Values (include "ndml.key" (index . 1)) -}}
{{- $all := deepCopy $own.resources -}}
{{- if and $own.gpu $own.gpu.enabled -}}
{{- $gpus := dict $own.gpu.resource (int $own.gpu.count) -}}
{{- $all = mustMergeOverwrite $all (dict "limits" $gpus "requests" $gpus) -}}
{{- end -}}
{{ toYaml $all }}
{{- end -}}

{{/* [root, component] */}}
{{- define "ndml.commonMounts" -}}
- {name: config, mountPath: /etc/ndml, readOnly: true}
- {name: tmp, mountPath: /tmp}
{{- if (index . 0).Values.tls.enabled }}
- {name: tls, mountPath: /etc/ndml-tls, readOnly: true}
{{- end }}
{{- with (index (index . 0).Values (include "ndml.key" (index . 1))).extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* [root, component] */}}
{{- define "ndml.commonVolumes" -}}
{{- $root := index . 0 -}}
{{- $own := index $root.Values (include "ndml.key" (index . 1)) -}}
- name: config
  configMap:
    name: {{ include "ndml.fullname" $root }}-{{ index . 1 }}
- name: tmp
  emptyDir:
    sizeLimit: {{ $own.tmpSize }}
{{- if $root.Values.tls.enabled }}
- name: tls
  secret:
    secretName: {{ include "ndml.tlsSecret" . }}
    defaultMode: 0440
{{- end }}
{{- with $own.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Secret with tls.crt, tls.key, ca.crt. [root, component] */}}
{{- define "ndml.tlsSecret" -}}
{{- $root := index . 0 -}}
{{- default (printf "%s-%s-tls" (include "ndml.fullname" $root) (index . 1)) (get $root.Values.tls.existingSecrets (include "ndml.key" (index . 1))) -}}
{{- end -}}

{{/* Secret that holds the bearer tokens; empty: everybody may call. */}}
{{- define "ndml.tokenSecret" -}}
{{- if .Values.auth.existingSecret -}}{{ .Values.auth.existingSecret }}
{{- else if .Values.auth.tokens -}}{{ include "ndml.fullname" . }}-tokens
{{- end -}}
{{- end -}}
