{{- define "operator.name" -}}
{{- .Values.nameOverride | default .Chart.Name -}}
{{- end -}}

{{/* The name of all objects of the release: the release name, plus the chart's unless it is included. */}}
{{- define "operator.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains (include "operator.name" .) .Release.Name -}}
{{- .Release.Name | trunc 53 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "operator.name" .) | trunc 53 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* An image of .Values, given as `image`: with a digest, no tag is needed, and the node ignores one. */}}
{{- define "operator.image" -}}
{{- with .root.Values.global.imageRegistry }}{{ trimSuffix "/" . }}/{{ end }}
{{- .image.repository }}
{{- if or .image.tag (not .image.digest) }}:{{ .image.tag | default .root.Chart.AppVersion }}{{ end }}
{{- with .image.digest }}@{{ . }}{{ end }}
{{- end -}}

{{/* The labels that select the operator's pod. A Deployment's selector is immutable. */}}
{{- define "operator.selectorLabels" -}}
app.kubernetes.io/name: {{ include "operator.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* The labels of the leader, which sets the second one itself, to the name of its Lease. */}}
{{- define "operator.leaderLabels" -}}
{{ include "operator.selectorLabels" . }}
djangotasks.dev/leader: {{ include "operator.fullname" . }}
{{- end -}}

{{- define "operator.labels" -}}
{{- $own := include "operator.ownLabels" . -}}
{{- if .Values.commonLabels -}}
{{- merge (deepCopy .Values.commonLabels) ($own | fromYaml) | toYaml -}}
{{- else -}}
{{- $own -}}
{{- end -}}
{{- end -}}

{{/* Other charts write the names in `global` with or without a field. */}}
{{- define "operator.imagePullSecrets" -}}
{{- range concat .Values.global.imagePullSecrets .Values.imagePullSecrets }}
- name: {{ if kindIs "string" . }}{{ . }}{{ else }}{{ .name }}{{ end }}
{{- end }}
{{- end -}}

{{/* What follows the labels of an object that has no other annotations. */}}
{{- define "operator.annotations" -}}
{{- with .Values.commonAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
{{- end }}
{{- end -}}

{{- define "operator.ownLabels" -}}
{{ include "operator.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/component: operator
app.kubernetes.io/part-of: {{ .Chart.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "operator.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "operator.fullname" .) -}}
{{- else -}}
{{- required "serviceAccount.name: name the existing service account, or set serviceAccount.create" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* Restricted or Platform: whether pods have a fixed user, or the one that the platform assigns. */}}
{{- define "operator.podSecurity" -}}
{{- if ne .Values.podSecurity "Auto" -}}
{{- .Values.podSecurity -}}
{{- else if .Capabilities.APIVersions.Has "security.openshift.io/v1" -}}
Platform
{{- else -}}
Restricted
{{- end -}}
{{- end -}}

{{- define "operator.podSecurityContext" -}}
runAsNonRoot: true
{{- if eq (include "operator.podSecurity" .) "Restricted" }}
runAsUser: 65532
runAsGroup: 65532
{{- end }}
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "operator.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* YAML, and fields that replace those in it. (merge does not replace true by false.) */}}
{{- define "operator.replaced" -}}
{{- $given := last . -}}
{{- if $given -}}
{{- $fields := first . | fromYaml -}}
{{- range $name, $value := $given -}}
{{- $_ := set $fields $name $value -}}
{{- end -}}
{{- toYaml $fields -}}
{{- else -}}
{{- first . -}}
{{- end -}}
{{- end -}}

{{/* The name of the objects of the metrics API: that of a Service may have 63 characters. */}}
{{- define "operator.metricsApiName" -}}
{{- include "operator.fullname" . | trunc 51 | trimSuffix "-" }}-metrics-api
{{- end -}}

{{/* The permissions of the operator in the namespaces that it watches. */}}
{{- define "operator.rules" -}}
- apiGroups: [djangotasks.dev]
  resources: [djangotaskworkers]
  verbs: [get, list, watch, patch]
- apiGroups: [djangotasks.dev]
  resources: [djangotaskworkers/status]
  verbs: [get, patch]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch]
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [apps]
  resources: [replicasets]
  verbs: [list, watch]
- apiGroups: [batch]
  resources: [jobs, cronjobs]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch, patch]
# The database URLs: each Secret is read by its name when it is needed, and never listed.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [list, create, patch]
{{- end -}}
