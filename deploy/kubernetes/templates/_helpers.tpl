{{/* All are called with (dict "root" $ "component" NAME), but where it says otherwise. */}}

{{- define "pairscore.name" -}}
{{ printf "%s-%s" .root.Release.Name .component }}
{{- end -}}

{{/* With $: what all Pods of a release are selected by. */}}
{{- define "pairscore.release" -}}
app.kubernetes.io/name: pairscore
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "pairscore.selector" -}}
{{ include "pairscore.release" .root }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* Without a component: of what belongs to all of them. */}}
{{- define "pairscore.labels" -}}
{{ include "pairscore.release" .root }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end -}}

{{- define "pairscore.metadata" -}}
name: {{ include "pairscore.name" . }}
namespace: {{ .root.Release.Namespace }}
labels: {{- include "pairscore.labels" . | nindent 2 }}
{{- end -}}

{{/* With $: the variables of all services. */}}
{{- define "pairscore.common" -}}
{{- $kafka := .Values.kafka -}}
{{- $own := dict
  "PAIRSCORE_KAFKA__BOOTSTRAP_SERVERS" $kafka.bootstrapServers
  "PAIRSCORE_KAFKA__TOPIC_PREFIX" $kafka.topicPrefix
  "PAIRSCORE_KAFKA__PARTITIONS" (int $kafka.partitions | toString)
  "PAIRSCORE_KAFKA__RETRY_DELAYS" $kafka.retryDelays
-}}
{{ merge (dict) $own .Values.settings | toYaml }}
{{- end -}}

{{/* With $: of each secret variable that is given, its value, or the name and key of a Secret that has it. */}}
{{- define "pairscore.secrets" -}}
{{- $kafka := .Values.kafka -}}
{{- $all := dict
  "PAIRSCORE_KAFKA__PROPERTIES" (list (empty $kafka.properties | ternary "" (toJson $kafka.properties)) $kafka.propertiesSecret)
  "PAIRSCORE_POSTGRES_URL" (list .Values.postgres.url .Values.postgres.urlSecret)
  "PAIRSCORE_REDIS__URL" (list .Values.redis.url .Values.redis.urlSecret)
-}}
{{- $given := dict -}}
{{- range $variable, $of := $all -}}
{{- $value := first $of -}}
{{- $secret := last $of -}}
{{- if and $value $secret.name -}}
{{- fail (printf "%s: give its value or a Secret that has it, not both" $variable) -}}
{{- else if or $value $secret.name -}}
{{- $_ := set $given $variable (dict "value" $value "name" $secret.name "key" $secret.key) -}}
{{- end -}}
{{- end -}}
{{ $given | toYaml }}
{{- end -}}

{{/* Variables of a container's own; called as "pairscore.pod". */}}
{{- define "pairscore.env" -}}
{{- $given := include "pairscore.secrets" .root | fromYaml -}}
{{- $variables := merge (dict) (.set | default dict) .own.settings -}}
{{- $ours := .root.Release.Name -}}
{{- if .hook -}}
{{- $variables = merge $variables (include "pairscore.common" .root | fromYaml) -}}
{{- $ours = include "pairscore.name" . -}}
{{- end -}}
{{- range $name, $value := $variables }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- range $name := .secrets }}
{{- with get $given $name }}
- name: {{ $name }}
  valueFrom:
    secretKeyRef: {name: {{ .name | default $ours }}, key: {{ empty .name | ternary $name .key | quote }}}
{{- end }}
{{- end }}
{{- end -}}

{{/*
A Pod's metadata and spec. Beside "root" and "component":
  service: producer, api, sink or worker, as in deploy/Dockerfile
  own: the values of the component
  set: variables that the chart sets
  secrets: secret variables that it takes where they are given
  command, args: instead of the image's
  volumes, mounts: more of them
  ports: more of them, by name
  grace: seconds from SIGTERM to SIGKILL
  linger: seconds before SIGTERM
  startup: seconds in which it must have begun; without, it is a Job's, which has no probes
  hook: it comes before the ConfigMap and the chart's Secret do, so it has their content, and a Secret of its own
*/}}
{{- define "pairscore.pod" -}}
{{- $root := .root -}}
{{- $image := $root.Values.image -}}
{{- $own := .own -}}
{{- $certificates := $root.Values.kafka.certificates -}}
metadata:
  labels: {{- include "pairscore.labels" . | nindent 4 }}
  annotations:
    checksum/settings: {{ include (print $root.Template.BasePath "/settings.yaml") $root | sha256sum }}
spec:
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ .grace }}
  {{- if not .startup }}
  restartPolicy: Never
  {{- end }}
  {{- with $image.pullSecrets }}
  imagePullSecrets:
    {{- range . }}
    - name: {{ . }}
    {{- end }}
  {{- end }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 10001
    runAsGroup: 10001
    fsGroup: 10001
    fsGroupChangePolicy: OnRootMismatch
    seccompProfile: {type: RuntimeDefault}
  {{- with $own.nodeSelector }}
  nodeSelector: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $own.tolerations }}
  tolerations: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if .startup }}
  topologySpreadConstraints:
    {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
    - topologyKey: {{ . }}
      maxSkew: 1
      whenUnsatisfiable: ScheduleAnyway
      labelSelector: {matchLabels: {{ include "pairscore.selector" $ | fromYaml | toJson }}}
    {{- end }}
  {{- end }}
  containers:
    - name: {{ .service }}
      image: {{ $own.image | default (printf "%spairscore-%s:%s" $image.registry .service ($image.tag | default $root.Chart.AppVersion)) | quote }}
      imagePullPolicy: {{ $image.pullPolicy }}
      {{- with .command }}
      command: {{ toJson . }}
      {{- end }}
      {{- with .args }}
      args: {{ toJson . }}
      {{- end }}
      {{- if not .hook }}
      envFrom:
        - configMapRef: {name: {{ $root.Release.Name }}}
      {{- end }}
      {{- with include "pairscore.env" . }}
      env: {{- . | nindent 8 }}
      {{- end }}
      {{- if ne .component "topics" }}
      ports:
        - {name: metrics, containerPort: 9464}
        {{- range $name, $port := .ports }}
        - {name: {{ $name }}, containerPort: {{ $port }}}
        {{- end }}
      {{- end }}
      {{- with .startup }}
      startupProbe:
        httpGet: {path: /livez, port: metrics}
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: {{ divf . 10 | ceil | int }}
      livenessProbe:
        httpGet: {path: /livez, port: metrics}
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 6
      readinessProbe:
        httpGet: {path: /readyz, port: metrics}
        periodSeconds: 10
        timeoutSeconds: 5
      {{- end }}
      {{- with .linger }}
      lifecycle:
        preStop: {exec: {command: [sleep, {{ . | quote }}]}}
      {{- end }}
      resources: {{- toYaml $own.resources | nindent 8 }}
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities: {drop: [ALL]}
      volumeMounts:
        - {name: tmp, mountPath: /tmp}
        {{- if $certificates }}
        - {name: certificates, mountPath: /etc/kafka, readOnly: true}
        {{- end }}
        {{- with .mounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  volumes:
    - name: tmp
      emptyDir: {sizeLimit: 1Gi}
    {{- with $certificates }}
    - name: certificates
      secret: {secretName: {{ . }}, defaultMode: 0440}
    {{- end }}
    {{- with .volumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}

{{/*
A Deployment, and how much of it may be away while nodes are drained. As "pairscore.pod", and:
  replicas: how many; null where something scales it
  strategy: its rollingUpdate
  away: maxUnavailable of the PodDisruptionBudget
*/}}
{{- define "pairscore.deployment" -}}
apiVersion: apps/v1
kind: Deployment
metadata: {{- include "pairscore.metadata" . | nindent 2 }}
spec:
  {{- if ne .replicas nil }}
  replicas: {{ .replicas }}
  {{- end }}
  # A model is loaded before the first Pod is ready.
  progressDeadlineSeconds: {{ max 600 .startup }}
  strategy:
    type: RollingUpdate
    rollingUpdate: {{ toJson .strategy }}
  selector:
    matchLabels: {{- include "pairscore.selector" . | nindent 6 }}
  template: {{- include "pairscore.pod" . | nindent 4 }}
{{- if .root.Values.disruptionBudgets }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {{- include "pairscore.metadata" . | nindent 2 }}
spec:
  maxUnavailable: {{ .away }}
  # One that is not ready does no work that a drain could disturb.
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels: {{- include "pairscore.selector" . | nindent 6 }}
{{- end }}
{{- end -}}
