{{- /* A name for any object, of at most so many characters: (list name most). One that has to be changed for that ends with
a hash of what it was, so that two that begin alike stay two. */}}
{{- define "swiftbalancer.cut" -}}
{{- $name := index . 0 }}
{{- $most := index . 1 | int }}
{{- /* Releases may be called `9.b`; a Service may not. */}}
{{- $label := $name | replace "." "-" }}
{{- if regexMatch "^[0-9]" $label }}
{{- $label = printf "r-%s" $label }}
{{- end }}
{{- if or (ne $label $name) (gt (len $label) $most) }}
{{- printf "%s-%s" ($label | trunc (sub $most 9 | int) | trimAll "-") ($name | sha256sum | trunc 8) }}
{{- else }}
{{- $label }}
{{- end }}
{{- end }}

{{- define "swiftbalancer.name" -}}
{{- default .Chart.Name .Values.nameOverride }}
{{- end }}

{{- /* With what a Deployment's pods append to it, 17 characters, it is a whole host name. */}}
{{- define "swiftbalancer.fullname" -}}
{{- $name := include "swiftbalancer.name" . }}
{{- $full := .Values.fullnameOverride }}
{{- if not $full }}
{{- $full = contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) }}
{{- end }}
{{- include "swiftbalancer.cut" (list $full 46) }}
{{- end }}

{{- /* Name of an object beside the Deployment: (list . "metrics") */}}
{{- define "swiftbalancer.named" -}}
{{- $suffix := index . 1 }}
{{- printf "%s-%s" (include "swiftbalancer.cut" (list (include "swiftbalancer.fullname" (index . 0)) (sub 62 (len $suffix)))) $suffix }}
{{- end }}

{{- /* Name of an object that belongs to no namespace: (list . "nodes"), or (list . "") for the release's own. It has the
namespace in it, behind a character that no namespace has, so that releases of one name in two namespaces do not meet. */}}
{{- define "swiftbalancer.clusterName" -}}
{{- $context := index . 0 }}
{{- $suffix := index . 1 | empty | ternary "" (printf ":%s" (index . 1)) }}
{{- $name := printf "%s:%s" $context.Release.Namespace (include "swiftbalancer.fullname" $context) }}
{{- $most := sub 63 (len $suffix) | int }}
{{- if gt (len $name) $most }}
{{- $name = printf "%s-%s" ($name | trunc (sub $most 9 | int) | trimSuffix "-" | trimSuffix ":") ($name | sha256sum | trunc 8) }}
{{- end }}
{{- printf "%s%s" $name $suffix }}
{{- end }}

{{- define "swiftbalancer.serviceAccount" -}}
{{- if .Values.serviceAccount.name }}
{{- .Values.serviceAccount.name }}
{{- else }}
{{- .Values.serviceAccount.create | ternary (include "swiftbalancer.fullname" .) "default" }}
{{- end }}
{{- end }}

{{- define "swiftbalancer.selectorLabels" -}}
app.kubernetes.io/name: {{ include "swiftbalancer.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "swiftbalancer.labels" -}}
{{ include "swiftbalancer.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimAll "-._" | quote }}
{{- end }}

{{- /* Reference of an image: (list image .) */}}
{{- define "swiftbalancer.image" -}}
{{- $image := index . 0 }}
{{- $context := index . 1 }}
{{- $repository := $image.repository }}
{{- with $context.Values.registry }}
{{- /* The first part of a repository is a registry if it could not be a folder of one. */}}
{{- $repository = printf "%s/%s" (trimSuffix "/" .) (regexReplaceAll "^([^/]*[.:][^/]*|localhost)/" $repository "") }}
{{- end }}
{{- if $image.digest }}
{{- printf "%s@%s" $repository $image.digest }}
{{- else }}
{{- printf "%s:%s" $repository (default $context.Chart.AppVersion $image.tag) }}
{{- end }}
{{- end }}

{{- /* Where pods of the chart may run. */}}
{{- define "swiftbalancer.placement" -}}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 0 }}
{{- end }}
{{- with .Values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- end }}

{{- /* Ends the rendering where the Prometheus operator is asked for and is not there: (list . "metrics.podMonitor.enabled") */}}
{{- define "swiftbalancer.needsPrometheusOperator" -}}
{{- if not ((index . 0).Capabilities.APIVersions.Has "monitoring.coreos.com/v1") }}
{{- fail (printf "%s needs the Prometheus operator: the cluster has no monitoring.coreos.com/v1" (index . 1)) }}
{{- end }}
{{- end }}
