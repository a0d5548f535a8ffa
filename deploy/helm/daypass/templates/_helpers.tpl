{{- define "daypass.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "daypass.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "daypass.labels" -}}
{{ include "daypass.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "daypass.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}{{ .Values.serviceAccount.name | default (include "daypass.name" .) }}{{ else }}{{ .Values.serviceAccount.name | default "default" }}{{ end }}
{{- end }}

{{- define "daypass.image" -}}
{{- if .Values.image.digest }}{{ .Values.image.repository }}@{{ .Values.image.digest }}{{ else }}{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}

{{- /* Several servers with a volume each are a StatefulSet; everything else is a Deployment. */}}
{{- define "daypass.kind" -}}
{{- if and (gt (int .Values.replicas) 1) .Values.persistence.enabled }}StatefulSet{{ else }}Deployment{{ end }}
{{- end }}

{{- /* What would start and not work, or lose something without a word, is refused. */}}
{{- define "daypass.check" -}}
{{- $several := gt (int .Values.replicas) 1 }}
{{- range $key := list "data" "keyring" "metrics" "peers" "registry" "root_key" }}
{{- if hasKey $.Values.config $key }}{{ fail (printf "config.%s: is set by the chart: see the chart's own values" $key) }}{{ end }}
{{- end }}
{{- range $listener := list "api" "gateway" }}
{{- range $key := list "listen" "tls" }}
{{- if hasKey (get $.Values.config $listener | default dict) $key }}{{ fail (printf "config.%s.%s: is set by the chart: use %s.port and %s.tls.secretName" $listener $key $listener $listener) }}{{ end }}
{{- end }}
{{- end }}
{{- range $key := list "account" "region" }}
{{- if not (get $.Values.config $key) }}{{ fail (printf "config.%s: is required (docs/configuration.md)" $key) }}{{ end }}
{{- end }}
{{- if and $several (not .Values.etcd.endpoints) }}{{ fail (printf "replicas: %d servers need etcd.endpoints, or what one of them revokes the others accept" (int .Values.replicas)) }}{{ end }}
{{- if and .Values.rootKey.secretName (not .Values.etcd.endpoints) }}{{ fail "rootKey.secretName: needs etcd.endpoints, where the servers keep what the root key certifies" }}{{ end }}
{{- if and .Values.rootKey.secretName .Values.keyring.secretName }}{{ fail "keyring.secretName: is in the place of rootKey.secretName: set one of them" }}{{ end }}
{{- if and $several (not .Values.rootKey.secretName) (not .Values.keyring.secretName) }}{{ fail (printf "replicas: %d servers need rootKey.secretName, or each refuses the credentials of the others" (int .Values.replicas)) }}{{ end }}
{{- if and $several (not .Values.gateway.tls.secretName) }}{{ fail (printf "replicas: %d servers need gateway.tls.secretName, or clients need the CA of each" (int .Values.replicas)) }}{{ end }}
{{- if and $several .Values.persistence.existingClaim }}{{ fail "persistence.existingClaim: is for a single server: two servers cannot share a data directory" }}{{ end }}
{{- end }}

{{- /* The configuration file. */}}
{{- define "daypass.config" -}}
{{- include "daypass.check" . }}
{{- $config := deepCopy .Values.config }}
{{- $_ := set $config "data" "/var/lib/daypass/data" }}
{{- $api := deepCopy (get $config "api" | default dict) }}
{{- $_ := set $api "listen" (printf "0.0.0.0:%d" (int .Values.api.port)) }}
{{- $_ := set $api "tls" (dict "certificate" "/etc/daypass/tls/api/tls.crt" "key" "/etc/daypass/tls/api/tls.key") }}
{{- $_ := set $config "api" $api }}
{{- $gateway := deepCopy (get $config "gateway" | default dict) }}
{{- $_ := set $gateway "listen" (printf "0.0.0.0:%d" (int .Values.gateway.port)) }}
{{- if .Values.gateway.tls.secretName }}
{{- $_ := set $gateway "tls" (dict "certificate" "/etc/daypass/tls/gateway/tls.crt" "key" "/etc/daypass/tls/gateway/tls.key") }}
{{- end }}
{{- $_ := set $config "gateway" $gateway }}
{{- if .Values.keyring.secretName }}{{ $_ := set $config "keyring" "/etc/daypass/keyring/keyring.json" }}{{ end }}
{{- if .Values.rootKey.secretName }}
{{- $_ := set $config "root_key" (dict "file" "/etc/daypass/root-key/root.key") }}
{{- $_ := set $config "peers" (dict "listen" (printf "0.0.0.0:%d" (int .Values.peers.port))) }}
{{- end }}
{{- if .Values.metrics.enabled }}{{ $_ := set $config "metrics" (dict "listen" (printf "0.0.0.0:%d" (int .Values.metrics.port))) }}{{ end }}
{{- if .Values.etcd.endpoints }}
{{- $etcd := dict "endpoints" .Values.etcd.endpoints "prefix" .Values.etcd.prefix }}
{{- if .Values.etcd.tls.secretName }}
{{- $tls := dict "ca" "/etc/daypass/tls/etcd/ca.crt" }}
{{- if .Values.etcd.tls.clientCertificate }}{{ $_ := set $tls "certificate" "/etc/daypass/tls/etcd/tls.crt" }}{{ $_ := set $tls "key" "/etc/daypass/tls/etcd/tls.key" }}{{ end }}
{{- $_ := set $etcd "tls" $tls }}
{{- end }}
{{- if .Values.etcd.username }}
{{- $_ := set $etcd "username" .Values.etcd.username }}
{{- $_ := set $etcd "password_file" (printf "/etc/daypass/etcd-password/%s" .Values.etcd.passwordSecret.key) }}
{{- end }}
{{- $_ := set $config "registry" (dict "etcd" $etcd) }}
{{- end }}
{{- toYaml $config }}
{{- end }}
