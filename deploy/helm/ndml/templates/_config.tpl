{{/* What the services are configured with: the chart's own part, and what `<component>.config` says over it. */}}

{{/* Quantities as whole numbers: "512Mi" in bytes, "500m" in cores rounded up. */}}
{{- define "ndml.bytes" -}}
{{- $text := toString . -}}
{{- $number := regexFind "^[0-9]+" $text | int64 -}}
{{- $unit := regexFind "[A-Za-z]*$" $text -}}
{{- mul $number (get (dict "" 1 "k" 1000 "M" 1000000 "G" 1000000000 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776) $unit) -}}
{{- end -}}

{{- define "ndml.cores" -}}
{{- $text := toString . -}}
{{- if hasSuffix "m" $text -}}{{ div (add (trimSuffix "m" $text | int) 999) 1000 }}{{- else -}}{{ ceil (float64 $text) | int }}{{- end -}}
{{- end -}}

{{/* Copies of each owner: as many as asked for, else three, or as many as there are nodes. */}}
{{- define "ndml.copies" -}}
{{- $nodes := int .Values.memoryNode.replicas -}}
{{- if .Values.replicationFactor -}}
{{- if gt (int .Values.replicationFactor) $nodes -}}
{{- fail (printf "replicationFactor is %d and memoryNode.replicas is %d: an owner cannot have more copies than there are nodes; raise memoryNode.replicas or lower replicationFactor" (int .Values.replicationFactor) $nodes) -}}
{{- end -}}
{{ int .Values.replicationFactor }}
{{- else -}}
{{ min 3 $nodes }}
{{- end -}}
{{- end -}}

{{/* JSON list: host:port of every consensus pod. */}}
{{- define "ndml.consensusAddresses" -}}
{{- $root := . -}}
{{- $found := list -}}
{{- range $ordinal := until (int .Values.consensus.replicas) -}}
{{- $found = append $found (include "ndml.podAddress" (list $root "consensus" $ordinal)) -}}
{{- end -}}
{{ toJson $found }}
{{- end -}}

{{/* What every service has. [root, component] as JSON */}}
{{- define "ndml.sharedConfig" -}}
{{- $root := index . 0 -}}
{{- $values := $root.Values -}}
{{- $component := index . 1 -}}
{{- $own := index $values (include "ndml.key" $component) -}}
{{- $port := int (include "ndml.port" $component) -}}
{{- $server := dict "host" "0.0.0.0" "port" $port "drain_s" $own.shutdown.drainSeconds "grace_s" $own.shutdown.graceSeconds -}}
{{- $telemetry := dict "otlp_endpoint" (include "ndml.otlpEndpoint" $root) "otlp_insecure" $values.telemetry.insecure "sample_ratio" $values.telemetry.sampleRatio -}}
{{- $all := dict "server" $server "logging" (dict "level" $values.logging.level "format" "json") "telemetry" $telemetry -}}
{{- if $values.tls.enabled -}}
{{- $_ := set $server "health_port" (add $port 2000) -}}
{{- $auth := eq $component "gateway" | ternary $values.tls.gatewayClientAuth "require" -}}
{{- $_ := set $all "tls" (dict "cert_file" "/etc/ndml-tls/tls.crt" "key_file" "/etc/ndml-tls/tls.key" "ca_file" "/etc/ndml-tls/ca.crt" "client_auth" $auth) -}}
{{- if $values.discovery.enabled -}}
{{- /* Pods found by their addresses have certificates with names: one name is in all of them. */ -}}
{{- $_ := set $all.tls "server_name" (include "ndml.suiteName" $root) -}}
{{- end -}}
{{- end -}}
{{- $kubernetes := dict -}}
{{- if and $values.discovery.enabled (ne $component "llm") -}}
{{- $_ := set $kubernetes "consensus_service" (printf "%s-consensus" (include "ndml.fullname" $root)) -}}
{{- if eq $component "gateway" -}}
{{- $_ := set $kubernetes "llm_service" (printf "%s-llm" (include "ndml.fullname" $root)) -}}
{{- end -}}
{{- end -}}
{{- if and $values.zones.fromNode (ne $component "llm") -}}
{{- $_ := set $kubernetes "zone_from_node" true -}}
{{- end -}}
{{- if $kubernetes -}}{{- $_ := set $all "kubernetes" $kubernetes -}}{{- end -}}
{{ toJson $all }}
{{- end -}}

{{- define "ndml.otlpEndpoint" -}}
{{- if .Values.telemetry.otlpEndpoint -}}{{ .Values.telemetry.otlpEndpoint }}
{{- else if .Values.collector.enabled -}}{{ include "ndml.fullname" . }}-collector.{{ .Release.Namespace }}.svc.{{ .Values.clusterDomain }}:4317
{{- else if .Values.jaeger.enabled -}}{{ include "ndml.fullname" . }}-jaeger.{{ .Release.Namespace }}.svc.{{ .Values.clusterDomain }}:4317
{{- end -}}
{{- end -}}

{{- define "ndml.config.gateway" -}}
{{- $consensus := include "ndml.consensusAddresses" . | fromJsonArray -}}
{{- $llm := printf "%s-llm.%s.svc.%s:7730" (include "ndml.fullname" .) .Release.Namespace .Values.clusterDomain -}}
{{- dict
  "rest" (dict "host" "0.0.0.0" "port" 7780 "drain_s" .Values.gateway.shutdown.restDrainSeconds)
  "placement" (dict "consensus" $consensus)
  "llm" (dict "addresses" (list $llm))
  "embedding" (dict "model" .Values.embedding.model "dimension" .Values.embedding.dimension)
  "quorum" (dict "write" .Values.writeCopies)
  | toJson -}}
{{- end -}}

{{- define "ndml.config.memory-node" -}}
{{- $consensus := include "ndml.consensusAddresses" . | fromJsonArray -}}
{{- $limit := include "ndml.bytes" .Values.memoryNode.resources.limits.memory | int64 -}}
{{- /* A damaged store is kept and filled anew where others have copies; the only copy is left for a person to look at. */ -}}
{{- $onDamage := gt (include "ndml.copies" . | int) 1 | ternary "set_aside" "refuse" -}}
{{- dict
  "node" (dict "dimension" .Values.embedding.dimension "embedding_model" .Values.embedding.model "rejoin" true)
  "store" (dict "data_dir" "/data" "max_traces" .Values.memoryNode.maxTraces "on_damage" $onDamage)
  "engine" (dict "index_memory_limit" (div $limit 2))
  "index" (dict "device" (.Values.memoryNode.gpu.enabled | ternary "gpu" "cpu"))
  "placement" (dict "consensus" $consensus)
  "heartbeat" (dict "consensus" $consensus "profile" .Values.memoryNode.profile)
  "replication" (include "ndml.signing" . | fromJson)
  | toJson -}}
{{- end -}}

{{/* Where updates are signed, by whom; else nothing. As JSON */}}
{{- define "ndml.signing" -}}
{{- $found := dict -}}
{{- if .Values.signing.rosterConfigMap -}}
{{- $_ := set $found "signing" (dict "roster" "/etc/ndml-roster/roster.json" "operator" .Values.signing.operator) -}}
{{- end -}}
{{ toJson $found }}
{{- end -}}

{{- define "ndml.config.consensus" -}}
{{- $root := . -}}
{{- $members := .Values.consensus.members -}}
{{- if not $members -}}
{{- range $ordinal := until (int .Values.memoryNode.replicas) -}}
{{- $members = append $members (printf "%s-memory-node-%d" (include "ndml.fullname" $root) $ordinal) -}}
{{- end -}}
{{- end -}}
{{- $mesh := dict -}}
{{- if .Values.consensus.lease.enabled -}}
{{- $mesh = dict "lease_name" (printf "%s-zone" (include "ndml.fullname" .)) "lease_namespace" .Release.Namespace -}}
{{- end -}}
{{- dict
  "cluster" (dict "members" $members "admit" true "replication_factor" (include "ndml.copies" . | int) "peers" (include "ndml.consensusAddresses" . | fromJsonArray))
  "store" (dict "data_dir" "/data")
  "mesh" $mesh
  | mustMergeOverwrite (include "ndml.signing" . | fromJson) | toJson -}}
{{- end -}}

{{- define "ndml.config.llm" -}}
{{- $cores := include "ndml.cores" .Values.llm.resources.limits.cpu | int -}}
{{- $device := .Values.llm.gpu.enabled | ternary "cuda" "cpu" -}}
{{- $embedding := dict "model" .Values.embedding.model "device" $device -}}
{{- $chat := dict "device" $device -}}
{{- if .Values.llm.gpu.enabled -}}
{{- $_ := set $embedding "batch_tokens" 16384 -}}
{{- else -}}
{{- $_ := set $embedding "workers" $cores -}}
{{- $_ := set $chat "torch_threads" (max 1 (div $cores 2)) -}}
{{- end -}}
{{- with .Values.llm.chat.model -}}{{- $_ := set $chat "model" . -}}{{- end -}}
{{- with .Values.llm.chat.upstreamUrl -}}
{{- $_ := set $chat "upstream_url" . -}}
{{- $_ := set $chat "upstream_kind" $.Values.llm.chat.upstreamKind -}}
{{- end -}}
{{- /* A model here is the only thing in the pod that a second GPU is for. */ -}}
{{- if and .Values.llm.gpu.enabled (gt (int .Values.llm.gpu.count) 1) (not .Values.llm.chat.upstreamUrl) -}}
{{- $_ := set $chat "spread" true -}}
{{- end -}}
{{ dict "embedding" $embedding "chat" $chat | toJson }}
{{- end -}}

{{/* The whole of a service's settings. [root, component] as JSON */}}
{{- define "ndml.configJson" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- $shared := include "ndml.sharedConfig" . | fromJson -}}
{{- $own := include (printf "ndml.config.%s" $component) $root | fromJson -}}
{{- $said := deepCopy (index $root.Values (include "ndml.key" $component)).config -}}
{{ mustMergeOverwrite $shared $own $said | toJson }}
{{- end -}}

{{- define "ndml.config" -}}
{{ include "ndml.configJson" . | fromJson | toYaml }}
{{- end -}}

{{/* Seconds that a process takes to leave at most, preStop included: the settings' own sum. [root, component] */}}
{{- define "ndml.shutdownSeconds" -}}
{{- $values := (index . 0).Values -}}
{{- $component := index . 1 -}}
{{- $config := include "ndml.configJson" . | fromJson -}}
{{- $sum := addf $config.server.drain_s $config.server.grace_s -}}
{{- if eq $component "gateway" -}}
{{- $sum = addf $sum (dig "rest" "drain_s" 10 $config) (dig "learning" "drain_s" 8 $config) (dig "quorum" "stop_s" 2 $config) -}}
{{- else if eq $component "memory-node" -}}
{{- $sum = addf $sum (dig "replication" "stream" "drain_s" 2 $config) $values.memoryNode.shutdown.closeSeconds -}}
{{- if $values.memoryNode.handOver.enabled -}}
{{- $sum = addf $sum $values.memoryNode.handOver.timeoutSeconds -}}
{{- end -}}
{{- end -}}
{{ ceil $sum | int }}
{{- end -}}

{{/* That sum and a reserve. [root, component] */}}
{{- define "ndml.terminationGrace" -}}
{{- add (include "ndml.shutdownSeconds" . | int) (int (index (index . 0).Values (include "ndml.key" (index . 1))).shutdown.reserveSeconds) -}}
{{- end -}}

{{/* Environment that a config map cannot hold: names of the pod, secrets. [root, component] */}}
{{- define "ndml.environment" -}}
{{- $root := index . 0 -}}
{{- $values := $root.Values -}}
{{- $component := index . 1 -}}
{{- $own := index $values (include "ndml.key" $component) -}}
{{- $prefix := include "ndml.env" $component -}}
{{- $port := include "ndml.port" $component -}}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: POD_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
- name: POD_IP
  valueFrom: {fieldRef: {fieldPath: status.podIP}}
{{- if and $values.zones.fromNode (ne $component "llm") }}
- name: NODE_NAME
  valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
{{- end }}
# The root file system is read-only; what libraries keep for themselves goes where pods may write.
- {name: HOME, value: /tmp}
- {name: {{ $prefix }}SERVER__INSTANCE, value: $(POD_NAME)}
{{- if has $component (list "memory-node" "consensus") }}
{{- $service := printf "%s-%s" (include "ndml.fullname" $root) $component }}
- name: {{ $prefix }}SERVER__ADVERTISE
  value: $(POD_NAME).{{ $service }}.{{ $root.Release.Namespace }}.svc.{{ $values.clusterDomain }}:{{ $port }}
{{- else }}
- {name: {{ $prefix }}SERVER__ADVERTISE, value: "$(POD_IP):{{ $port }}"}
{{- end }}
{{- if eq $component "memory-node" }}
- {name: {{ $prefix }}NODE__NODE_ID, value: $(POD_NAME)}
{{- end }}
{{- if and (eq $component "gateway") (include "ndml.tokenSecret" $root) }}
- name: {{ $prefix }}AUTH__TOKENS
  valueFrom:
    secretKeyRef: {name: {{ include "ndml.tokenSecret" $root }}, key: {{ $values.auth.tokensKey }}}
{{- end }}
{{- if eq $component "llm" }}
{{- with $values.llm.chat.apiKeySecret.name }}
- name: {{ $prefix }}CHAT__API_KEY
  valueFrom:
    secretKeyRef: {name: {{ . }}, key: {{ $values.llm.chat.apiKeySecret.key }}}
{{- end }}
{{- with $values.llm.models.tokenSecret.name }}
- name: HF_TOKEN
  valueFrom:
    secretKeyRef: {name: {{ . }}, key: {{ $values.llm.models.tokenSecret.key }}}
{{- end }}
- {name: HF_HOME, value: {{ $values.llm.models.enabled | ternary "/models" "/tmp/huggingface" }}}
- {name: HF_HUB_OFFLINE, value: {{ $values.llm.models.download | ternary "0" "1" | quote }}}
{{- end }}
{{- with $own.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* A name that the certificate of every service has. */}}
{{- define "ndml.suiteName" -}}{{ include "ndml.fullname" . }}.{{ .Release.Namespace }}.svc.{{ .Values.clusterDomain }}{{- end -}}
