{{/* As many more a minute as there are; a tenth, or one, fewer in two: each that goes moves partitions. */}}
{{- define "pairscore.behavior" -}}
scaleUp:
  stabilizationWindowSeconds: 60
  policies: [{type: Percent, value: 100, periodSeconds: 60}, {type: Pods, value: 2, periodSeconds: 60}]
scaleDown:
  stabilizationWindowSeconds: 600
  policies: [{type: Percent, value: 10, periodSeconds: 120}, {type: Pods, value: 1, periodSeconds: 120}]
{{- end -}}

{{/* With "scaler", values such as workers.cpu.keda. */}}
{{- define "pairscore.keda" -}}
{{- $kafka := .root.Values.kafka -}}
{{- $scaler := .scaler -}}
{{- $topics := list "pairs" "pairs.interactive" -}}
{{- if ne $kafka.retryDelays "none" -}}
{{- range splitList "," $kafka.retryDelays -}}
{{- $topics = append $topics (printf "pairs.retry.%ss" (trim .)) -}}
{{- end -}}
{{- end -}}
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata: {{- include "pairscore.metadata" . | nindent 2 }}
spec:
  scaleTargetRef: {name: {{ include "pairscore.name" . }}}
  minReplicaCount: {{ $scaler.minReplicas }}
  maxReplicaCount: {{ $scaler.maxReplicas }}
  pollingInterval: {{ $scaler.pollingInterval }}
  cooldownPeriod: {{ $scaler.cooldownPeriod }}
  advanced:
    horizontalPodAutoscalerConfig:
      behavior: {{- include "pairscore.behavior" . | nindent 8 }}
  triggers:
    {{- range $topics }}
    - type: kafka
      metadata:
        {{- toYaml (merge (dict
          "bootstrapServers" $kafka.bootstrapServers
          "consumerGroup" (print $kafka.topicPrefix "worker")
          "topic" (print $kafka.topicPrefix .)
          "lagThreshold" (int $scaler.lagThreshold | toString)
          "activationLagThreshold" (int $scaler.activationLag | toString)
          "limitToPartitionsWithLag" "true"
          "offsetResetPolicy" "earliest"
          "version" "2.8.0"
        ) $scaler.metadata) | nindent 8 }}
      {{- with $scaler.authentication }}
      authenticationRef: {name: {{ . }}}
      {{- end }}
    {{- end }}
    {{- with $scaler.deadlines }}
    - type: prometheus
      metricType: AverageValue
      metadata: {serverAddress: {{ . | quote }}, query: sum(pairscore_required_workers), threshold: "1"}
    {{- end }}
{{- end -}}

{{/* With "scaler", values such as workers.cpu.hpa. */}}
{{- define "pairscore.hpa" -}}
{{- $metric := .scaler.metric -}}
{{- $named := dict "name" $metric.name -}}
{{- with $metric.matchLabels -}}
{{- $_ := set $named "selector" (dict "matchLabels" .) -}}
{{- end -}}
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {{- include "pairscore.metadata" . | nindent 2 }}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: {{ include "pairscore.name" . }}}
  minReplicas: {{ .scaler.minReplicas }}
  maxReplicas: {{ .scaler.maxReplicas }}
  metrics:
    - type: {{ $metric.type }}
      {{ lower $metric.type }}:
        metric: {{ toJson $named }}
        target: {type: AverageValue, averageValue: {{ $metric.averageValue | quote }}}
  behavior: {{- include "pairscore.behavior" . | nindent 4 }}
{{- end -}}
