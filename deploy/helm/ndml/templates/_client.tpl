{{/* Pods that call the gateway as anybody does: helm test and backup. They run the gateway's image and its `ndml`. */}}

{{- define "ndml.clientPod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- include "ndml.podSecurity" . | nindent 2 }}
{{- end -}}

{{/* Ends with its list of mounts, so that the caller may go on with it. [root, arguments, resources] */}}
{{- define "ndml.clientContainer" -}}
{{- $root := index . 0 -}}
{{- $secret := default (include "ndml.tokenSecret" $root) $root.Values.auth.operatorTokenSecret -}}
name: ndml
image: {{ include "ndml.image" (list $root "gateway") }}
imagePullPolicy: {{ $root.Values.image.pullPolicy }}
command: [python, -m, ndml.cli]
args: {{ toJson (index . 1) }}
env:
- {name: HOME, value: /tmp}
- name: NDML_ADDRESS
  value: {{ include "ndml.fullname" $root }}-gateway.{{ $root.Release.Namespace }}.svc.{{ $root.Values.clusterDomain }}:7700
{{- if $root.Values.tls.enabled }}
- {name: NDML_TLS_ROOTS, value: /etc/ndml-tls/ca.crt}
{{- if eq $root.Values.tls.gatewayClientAuth "require" }}
- {name: NDML_TLS_CERTIFICATE, value: /etc/ndml-tls/tls.crt}
- {name: NDML_TLS_KEY, value: /etc/ndml-tls/tls.key}
{{- end }}
{{- end }}
{{- if $secret }}
- name: NDML_TOKEN
  valueFrom:
    secretKeyRef: {name: {{ $secret }}, key: {{ $root.Values.auth.operatorTokenKey }}}
{{- end }}
resources:
  {{- toYaml (index . 2) | nindent 2 }}
securityContext:
  {{- include "ndml.containerSecurity" $root | nindent 2 }}
volumeMounts:
- {name: tmp, mountPath: /tmp}
{{- if $root.Values.tls.enabled }}
- {name: tls, mountPath: /etc/ndml-tls, readOnly: true}
{{- end }}
{{- end -}}

{{- define "ndml.clientVolumes" -}}
- name: tmp
  emptyDir:
    sizeLimit: 64Mi
{{- if .Values.tls.enabled }}
- name: tls
  secret:
    secretName: {{ include "ndml.tlsSecret" (list . "gateway") }}
    defaultMode: 0440
    {{- if ne .Values.tls.gatewayClientAuth "require" }}
    # The gateway's key is nobody else's, where callers need none.
    items:
    - {key: ca.crt, path: ca.crt}
    {{- end }}
{{- end }}
{{- end -}}
