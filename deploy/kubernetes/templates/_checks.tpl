{{/* With $: variables that are set from values, and by which; in no settings. */}}
{{- define "pairscore.owned" -}}
PAIRSCORE_KAFKA__BOOTSTRAP_SERVERS: kafka.bootstrapServers
PAIRSCORE_KAFKA__TOPIC_PREFIX: kafka.topicPrefix
PAIRSCORE_KAFKA__PARTITIONS: kafka.partitions
PAIRSCORE_KAFKA__RETRY_DELAYS: kafka.retryDelays
PAIRSCORE_KAFKA__PROPERTIES: kafka.properties or kafka.propertiesSecret
PAIRSCORE_REDIS__URL: redis.url or redis.urlSecret
PAIRSCORE_POSTGRES_URL: postgres.url or postgres.urlSecret
PAIRSCORE_DEVICE: workers.cpu or workers.gpu
PAIRSCORE_WORKER__SHUTDOWN_SECONDS: worker.shutdownSeconds
PAIRSCORE_FETCH__ALLOW_NETWORKS: worker.allowNetworks
PAIRSCORE_API__KEYS: api.keys
PAIRSCORE_API__OPEN: api.open
PAIRSCORE_API__SPOOL: the chart
PAIRSCORE_API__HOST: the image
PAIRSCORE_API__PORT: the chart
PAIRSCORE_RESULTS: the image
PAIRSCORE_CACHE_DIR: the image
PAIRSCORE_TELEMETRY__HOST: the image
PAIRSCORE_TELEMETRY__PORT: the image
{{- end -}}

{{/* With $: what the schema cannot say; one line of what is wrong. */}}
{{- define "pairscore.checks" -}}
{{- $values := .Values -}}
{{- $given := include "pairscore.secrets" . | fromYaml -}}
{{- $owned := include "pairscore.owned" . | fromYaml -}}
{{- if not $values.kafka.bootstrapServers -}}
{{- fail "kafka.bootstrapServers must be set: host:port,..." -}}
{{- end -}}
{{- $places := dict "settings" $values "worker.settings" $values.worker -}}
{{- range list "topics" "sinkCsv" "sinkPostgres" "api" "producer" -}}
{{- $_ := set $places (printf "%s.settings" .) (get $values .) -}}
{{- end -}}
{{- $workers := 0 -}}
{{- range $kind, $own := $values.workers -}}
{{- $_ := set $places (printf "workers.%s.settings" $kind) $own -}}
{{- if and $own.keda.enabled $own.hpa.enabled -}}
{{- fail (printf "workers.%s: keda and hpa would scale the same workers; enable one of them" $kind) -}}
{{- end -}}
{{- range $name := list "keda" "hpa" -}}
{{- $scaler := get $own $name -}}
{{- if and $scaler.enabled (gt (int $scaler.minReplicas) (int $scaler.maxReplicas)) -}}
{{- fail (printf "workers.%s.%s: minReplicas is more than maxReplicas" $kind $name) -}}
{{- end -}}
{{- end -}}
{{- if $own.enabled -}}
{{- $most := $own.keda.enabled | ternary $own.keda.maxReplicas ($own.hpa.enabled | ternary $own.hpa.maxReplicas $own.replicas) -}}
{{- $workers = add $workers (int $most) -}}
{{- end -}}
{{- end -}}
{{- if gt (int $workers) (int $values.kafka.partitions) -}}
{{- fail (printf "workers: up to %d of them and kafka.partitions is %d; one more than partitions would have nothing to do" (int $workers) (int $values.kafka.partitions)) -}}
{{- end -}}
{{- range $kind, $own := $values.workers -}}
{{- if and $own.enabled $own.keda.enabled -}}
{{- range $server := splitList "," $values.kafka.bootstrapServers -}}
{{- /* A name of one label, not followed by more of an IPv6 address. */ -}}
{{- if regexMatch "^[^.:]+(:[0-9]+)?$" (trim $server) -}}
{{- fail (printf "kafka.bootstrapServers: KEDA looks for %s in its own namespace; write HOST.NAMESPACE:PORT" (trim $server)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $place, $own := $places -}}
{{- range $variable, $_ := $own.settings -}}
{{- with get $owned $variable -}}
{{- fail (printf "%s: %s is set by %s; leave it out" $place $variable .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range list "sinkPostgres" "api" -}}
{{- if and (get $values .).enabled (not (hasKey $given "PAIRSCORE_POSTGRES_URL")) -}}
{{- fail (printf "%s needs a database: set postgres.url or postgres.urlSecret.name" .) -}}
{{- end -}}
{{- end -}}
{{- if and $values.api.enabled (eq $values.api.open (not (empty $values.api.keys))) -}}
{{- fail "api: set keys, the Secret with keys.json, or open=true where anybody may use it" -}}
{{- end -}}
{{- if and $values.api.ingress.enabled (not $values.api.ingress.host) -}}
{{- fail "api.ingress.host must be set" -}}
{{- end -}}
{{- with $values.producer -}}
{{- if and .enabled (or (not .file) (eq (empty .claim) (empty .configMap))) -}}
{{- fail "producer: set file, and claim or configMap, which has it" -}}
{{- end -}}
{{- end -}}
{{- end -}}
