"""The Helm chart in deploy/kubernetes: what helm makes of it keeps what the services rely on."""

import os
import re
import shutil
from ipaddress import ip_network
from textwrap import dedent

import pytest
import yaml

import pairscore
from pairscore.errors import SettingsError
from pairscore.fetch import address
from pairscore.fetch.address import AddressGuard
from producer.api import command as api
from producer.csv_command import END_SECONDS as PRODUCER_SECONDS
from scripts import chart
from shared.settings import (
    SERVICES,
    KafkaSettings,
    ProducerSettings,
    ServiceSettings,
    SinkSettings,
    WorkerOptions,
    WorkerSettings,
    read_service_settings,
)
from shared.telemetry.server import DEFAULT_PORT
from shared.topics import Topics
from shared.variables import refuse_unknown
from sink.running import END_SECONDS as SINK_SECONDS
from tests.charting import (
    KINDS,
    LONG_RUNNING,
    destinations,
    environment,
    of_kind,
    policies,
    reaches,
    relabelled,
    rendered,
    selects,
    workload,
    workloads,
)
from tests.documents import blocks, page
from tests.monitoring import FOLDER, document, rules
from worker.__main__ import GROUP
from worker.loop import LAST_SECONDS

README = "../deploy/kubernetes/README.md"
MARGIN_SECONDS = 5.0
WORKERS = ("worker-cpu", "worker-gpu")
READERS = {
    "topics": ServiceSettings,
    "worker-cpu": WorkerSettings,
    "worker-gpu": WorkerSettings,
    "sink-csv": SinkSettings,
    "sink-postgres": SinkSettings,
    "api": ProducerSettings,
    "producer": ProducerSettings,
}
each_kind = pytest.mark.parametrize("values", KINDS)


@pytest.fixture(autouse=True, scope="module")
def _helm():
    if chart.helm() is None:
        if os.environ.get("CI"):
            pytest.fail(chart.NO_HELM, pytrace=False)
        pytest.skip(chart.NO_HELM)


def values():
    return yaml.safe_load((chart.CHART / "values.yaml").read_text())


def test_it_has_the_version_of_the_package():
    found = yaml.safe_load((chart.CHART / "Chart.yaml").read_text())
    assert found["version"] == found["appVersion"] == pairscore.__version__
    image = workload("sink-csv", rendered()).containers[0]["image"]
    assert image == f"pairscore-sink:{pairscore.__version__}"


@each_kind
def test_every_pod_is_one_of_the_restricted_profile(values):
    found = workloads(rendered(values))
    assert len(found) >= 3
    for each in found:
        spec = each.pod["spec"]
        assert (
            spec["securityContext"].items()
            >= {
                "runAsNonRoot": True,
                "runAsUser": 10001,
                "seccompProfile": {"type": "RuntimeDefault"},
            }.items()
        )
        assert spec["automountServiceAccountToken"] is False
        assert not spec.keys() & {"hostNetwork", "hostPID", "hostIPC"}
        assert not [volume for volume in spec["volumes"] if "hostPath" in volume]
        for container in each.containers:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }


@each_kind
def test_what_services_write_to_is_a_volume(values):
    for each in workloads(rendered(values)):
        mounted = {mount["mountPath"] for mount in each.containers[0]["volumeMounts"]}
        component = each.labels["app.kubernetes.io/component"]
        wanted = {"/tmp"} | {"sink-csv": {"/results"}, "api": {"/spool"}}.get(component, set())
        if component in WORKERS and values != "gpu":  # where the model is built in
            wanted.add("/models")
        assert wanted <= mounted
        assert ("/models" in mounted) == ("/models" in wanted)


@each_kind
def test_every_container_has_limits_and_every_service_is_asked_how_it_is(values):
    for each in workloads(rendered(values)):
        (container,) = each.containers
        for amounts in ("requests", "limits"):
            assert container["resources"][amounts].keys() >= {"cpu", "memory"}
        if each.kind in LONG_RUNNING:
            assert {"name": "metrics", "containerPort": DEFAULT_PORT} in container["ports"]
            asked = {
                probe: container[f"{probe}Probe"]["httpGet"]
                for probe in ("startup", "liveness", "readiness")
            }
            assert asked == {
                "startup": {"path": "/livez", "port": "metrics"},
                "liveness": {"path": "/livez", "port": "metrics"},
                "readiness": {"path": "/readyz", "port": "metrics"},
            }


def test_a_gpu_is_had_by_the_workers_that_are_for_one_alone():
    manifests = rendered("all")
    for each in workloads(manifests):
        gpu = each.labels["app.kubernetes.io/component"] == "worker-gpu"
        assert ("nvidia.com/gpu" in each.containers[0]["resources"]["limits"]) == gpu
        assert (
            any("nvidia.com/gpu" in one.values() for one in each.pod["spec"].get("tolerations", []))
            == gpu
        )
    assert environment(workload("worker-gpu", manifests), manifests)["PAIRSCORE_DEVICE"] == "cuda"
    assert environment(workload("worker-cpu", manifests), manifests)["PAIRSCORE_DEVICE"] == "cpu"


@pytest.mark.parametrize(
    ("values", "sets", "seconds"),
    [
        ("default", [], 20.0),
        ("default", ["worker.shutdownSeconds=0"], 0.0),
        ("default", ["worker.shutdownSeconds=600"], 600.0),
        ("all", [], 45.5),
    ],
)
def test_workers_have_the_time_to_end_that_they_take(values, sets, seconds):
    manifests = rendered(values, *sets)
    worker = workload("worker-cpu", manifests)
    told = float(environment(worker, manifests)["PAIRSCORE_WORKER__SHUTDOWN_SECONDS"])
    assert told == seconds
    takes = told + LAST_SECONDS
    assert worker.pod["spec"]["terminationGracePeriodSeconds"] >= takes + MARGIN_SECONDS


def test_services_have_the_time_to_end_that_they_take():
    manifests = rendered("all")
    takes = {
        "sink-csv": SINK_SECONDS,
        "sink-postgres": SINK_SECONDS,
        "producer": PRODUCER_SECONDS,
        "api": api._END_SECONDS + 5,  # and what it lingers before it is asked to end
    }
    for component, seconds in takes.items():
        pod = workload(component, manifests).pod
        assert pod["spec"]["terminationGracePeriodSeconds"] >= seconds + MARGIN_SECONDS
    (container,) = workload("api", manifests).containers
    assert container["lifecycle"]["preStop"]["exec"]["command"] == ["sleep", "5"]


def test_values_begin_with_the_defaults_of_the_settings():
    given = values()
    kafka = KafkaSettings()
    assert given["worker"]["shutdownSeconds"] == WorkerOptions().shutdown_seconds
    assert given["kafka"]["partitions"] == kafka.partitions
    assert given["kafka"]["topicPrefix"] == kafka.topic_prefix
    assert given["kafka"]["retryDelays"] == ",".join(map(str, kafka.retry_delays))


@each_kind
def test_services_understand_every_variable_that_they_get(values, monkeypatch):
    manifests = rendered(values)
    for each in workloads(manifests):
        kind = READERS[each.labels["app.kubernetes.io/component"]]
        found = environment(each, manifests)
        with monkeypatch.context() as patch:
            for name, value in found.items():
                # What is in a Secret of the user's is not known here.
                patch.setenv(name, "" if value.startswith("pairscore-") and "/" in value else value)
            settings = read_service_settings(kind)
        assert settings.kafka.bootstrap_servers == found["PAIRSCORE_KAFKA__BOOTSTRAP_SERVERS"]
        assert settings.kafka.partitions == {"default": 12, "gpu": 48, "all": 60}[values]


def test_what_values_say_reaches_the_settings(monkeypatch):
    manifests = rendered("all")

    def read(component, kind):
        with monkeypatch.context() as patch:
            for name, value in environment(workload(component, manifests), manifests).items():
                patch.setenv(name, value)
            return read_service_settings(kind)

    worker = read("worker-cpu", WorkerSettings)
    assert worker.kafka.topic_prefix == "team."
    assert worker.kafka.retry_delays == (5, 60)
    assert worker.kafka.properties["sasl.password"] == "not-a-secret"
    assert worker.kafka.properties["socket.timeout.ms"] == "60000"
    assert worker.redis.url is not None
    assert worker.worker.shutdown_seconds == 45.5
    assert worker.fetch.allow_networks == (ip_network("10.20.0.0/16"), ip_network("fd00:20::/32"))
    assert worker.precision == "fp32"
    assert worker.window == 4096  # its own, not that of all workers
    assert read("worker-gpu", WorkerSettings).window == 8192
    assert read("sink-csv", SinkSettings).telemetry.log_level == "warning"
    assert read("sink-postgres", SinkSettings).postgres_url is not None
    served = read("api", ProducerSettings)
    assert (served.api.keys, served.api.open) == ("/etc/pairscore/keys.json", False)


def test_secrets_are_given_to_those_that_need_them_alone():
    manifests = rendered("all")
    has = {
        each.labels["app.kubernetes.io/component"]: {
            variable["name"]
            for variable in each.containers[0].get("env", [])
            if "valueFrom" in variable
        }
        for each in workloads(manifests)
    }
    kafka, redis, postgres = (
        "PAIRSCORE_KAFKA__PROPERTIES",
        "PAIRSCORE_REDIS__URL",
        "PAIRSCORE_POSTGRES_URL",
    )
    assert has == {
        "topics": {kafka},
        "worker-cpu": {kafka, redis},
        "worker-gpu": {kafka, redis},
        "sink-csv": {kafka},
        "sink-postgres": {kafka, postgres},
        "api": {kafka, redis, postgres},
        "producer": {kafka, postgres},
    }


def test_secrets_are_written_nowhere_but_in_secrets(tmp_path):
    copy = shutil.copytree(chart.CHART, tmp_path / "chart")
    shutil.copy(copy / "templates" / "NOTES.txt", copy / "notes.txt")
    (copy / "templates" / "notes.yaml").write_text(
        'kind: Notes\nsaid: |\n  {{- tpl (.Files.Get "notes.txt") . | nindent 2 }}\n'
    )
    text = chart.run_helm(
        *("template", "x", str(copy), "--kube-version", "1.37"),
        *("--values", str(chart.CHART / "ci" / "all.yaml")),
    )
    found = [manifest for manifest in yaml.safe_load_all(text) if manifest]
    assert any("sink status" in each["said"] for each in found if each["kind"] == "Notes")
    assert "not-a-secret" not in yaml.safe_dump(found)
    written = environment(workload("api", rendered("all")), rendered("all"))
    assert "not-a-secret" in written["PAIRSCORE_POSTGRES_URL"]


@pytest.mark.parametrize(
    "change", ["settings.PAIRSCORE_TELEMETRY__LOG_LEVEL=debug", "redis.url=redis://other:6379"]
)
def test_pods_are_renewed_when_what_they_are_told_changes(change):
    before, after = rendered("all"), rendered("all", change)
    assert {each.name for each in workloads(before)} == {each.name for each in workloads(after)}
    for old, new in zip(workloads(before), workloads(after), strict=True):
        assert old.pod["metadata"]["annotations"] != new.pod["metadata"]["annotations"]


def test_topics_are_made_before_anything_that_they_are_made_with():
    manifests = rendered("all")
    hooks = [each for each in manifests if "annotations" in each["metadata"]]
    hooks = [each for each in hooks if "helm.sh/hook" in each["metadata"]["annotations"]]
    assert {each["kind"] for each in hooks} == {"Job", "Secret"}
    for each in hooks:
        assert each["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    secret, job = sorted(hooks, key=lambda each: each["kind"] == "Job")
    assert int(secret["metadata"]["annotations"]["helm.sh/hook-weight"]) < 0
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert [*container["command"], *container["args"]] == [
        "python",
        "-m",
        "shared.topics",
        "create",
    ]
    assert "envFrom" not in container
    (reference,) = (each["valueFrom"] for each in container["env"] if "valueFrom" in each)
    assert reference["secretKeyRef"]["name"] == secret["metadata"]["name"]


def borders(networks) -> list[str]:
    """The addresses at both sides of every border of these networks."""
    found = set()
    for network in networks:
        first, last = int(network.network_address), int(network.broadcast_address)
        kind, top = type(network.network_address), (1 << network.max_prefixlen) - 1
        found |= {str(kind(n)) for n in (first - 1, first, last, last + 1) if 0 <= n <= top}
    return sorted(found)


@pytest.mark.parametrize("component", WORKERS)
def test_workers_reach_the_addresses_that_the_fetcher_asks_and_no_others(component):
    manifests = rendered("default", "workers.gpu.enabled=true")
    worker, guard = workload(component, manifests), AddressGuard()
    blocks = [peer["ipBlock"] for peer in destinations(worker, manifests) if "ipBlock" in peer]
    named = [ip_network(each) for block in blocks for each in (block["cidr"], *block["except"])]
    refused = (*address._REFUSED_IPV4, *address._REFUSED_IPV6, address._UNICAST_IPV6)
    # Between two borders of either list, both say the same of every address.
    wanted = {each: guard.permits(each) for each in borders((*named, *refused))}
    assert {each: reaches(worker, each, manifests) for each in wanted} == wanted
    assert set(wanted.values()) == {True, False}
    # The metadata services of AWS, Azure and Google; of Alibaba; of AWS by IPv6.
    for metadata in ("169.254.169.254", "100.100.100.200", "fd00:ec2::254"):
        assert not reaches(worker, metadata, manifests)


def test_networks_of_yours_are_open_and_those_of_the_cluster_closed_where_values_say_so():
    manifests = rendered("all")
    worker = workload("worker-cpu", manifests)
    assert reaches(worker, "10.20.1.1", manifests)
    assert reaches(worker, "fd00:20::1", manifests)
    assert not reaches(worker, "10.21.1.1", manifests)
    assert not reaches(worker, "34.118.224.1", manifests)
    assert not reaches(worker, "2600:1900::1", manifests)
    assert reaches(worker, "34.118.223.1", manifests)


def test_only_workers_reach_the_internet():
    manifests = rendered("all")
    for each in workloads(manifests):
        outside = [peer for peer in destinations(each, manifests) if "ipBlock" in peer]
        assert bool(outside) == (each.labels["app.kubernetes.io/component"] in WORKERS)


def test_services_reach_what_they_need_and_are_asked_by_those_who_may():
    manifests = rendered("all")
    out, come = {}, {}
    for each in workloads(manifests):
        component = each.labels["app.kubernetes.io/component"]
        found = policies(each, manifests)
        out[component] = {
            port["port"]
            for policy in found
            for rule in policy.get("egress", [])
            for port in rule["ports"]
            if "port" in port
        }
        come[component] = {
            (port["port"], yaml.safe_dump(rule["from"]))
            for policy in found
            for rule in policy.get("ingress", [])
            for port in rule["ports"]
        }
        assert {"Ingress", "Egress"} <= {kind for policy in found for kind in policy["policyTypes"]}
    kafka = {53, 9092, 9093, 4318}
    assert out == {
        "topics": kafka,
        "worker-cpu": kafka | {6379},
        "worker-gpu": kafka | {6379},
        "sink-csv": kafka,
        "sink-postgres": kafka | {5432},
        "api": kafka | {6379, 5432},
        "producer": kafka | {5432},
    }
    for component, by in come.items():
        assert {port for port, _ in by} == {"metrics", *(["api"] if component == "api" else [])}
        assert all("monitoring" in peers or "ingress" in peers for _, peers in by)


@each_kind
def test_selectors_find_the_pods_that_they_are_for(values):
    manifests = rendered(values)
    found = workloads(manifests)
    budgets = of_kind("PodDisruptionBudget", manifests)
    assert {budget["metadata"]["name"] for budget in budgets} == {
        each.name for each in found if each.kind == "Deployment"
    }
    for manifest in (*budgets, *of_kind("Service", manifests)):
        spec = manifest["spec"]
        wanted = (
            spec["selector"] if manifest["kind"] != "Service" else {"matchLabels": spec["selector"]}
        )
        assert [each.name for each in found if selects(wanted, each.labels)] == [
            manifest["metadata"]["name"]
        ]
    for monitor in of_kind("PodMonitor", manifests):
        assert all(selects(monitor["spec"]["selector"], each.labels) for each in found)


def test_prometheus_names_jobs_as_the_rules_and_dashboards_do():
    manifests = rendered("all")
    (monitor,) = of_kind("PodMonitor", manifests)
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    jobs = {}
    for each in workloads(manifests):
        if "ports" not in each.containers[0]:
            continue
        labels = {
            f"__meta_kubernetes_pod_label_{re.sub(r'[^A-Za-z0-9_]', '_', name)}": value
            for name, value in each.labels.items()
        }
        found = relabelled({"job": "pairscore/pairscore"} | labels, endpoint["relabelings"])
        jobs[each.labels["app.kubernetes.io/component"]] = found["job"]
    assert jobs == {
        "worker-cpu": "worker",
        "worker-gpu": "worker",
        "sink-csv": "sink",
        "sink-postgres": "sink-postgres",
        "api": "api",
        "producer": "producer",
    }
    scraped = {each["job_name"] for each in document(FOLDER / "prometheus.yml")["scrape_configs"]}
    # Nobody but the chart has producers of files scraped.
    assert {*jobs.values(), "prometheus"} == scraped | {"producer"}
    asked = [re.findall(r'\bjob=~?"([^"]+)"', rule["expr"]) for rule in rules()]
    named = {name for each in asked for names in each for name in names.split("|")}
    assert {"worker", "sink"} <= named <= {*jobs.values()}


@pytest.mark.parametrize(("prefix", "delays"), [("", "5,60,600"), ("team.", "1, 30"), ("", "none")])
def test_keda_looks_at_the_topics_that_workers_read(prefix, delays):
    escaped = delays.replace(",", r"\,")
    manifests = rendered("gpu", f"kafka.topicPrefix={prefix}", f"kafka.retryDelays={escaped}")
    (scaled,) = of_kind("ScaledObject", manifests)
    settings = KafkaSettings.model_validate({"topic_prefix": prefix, "retry_delays": delays})
    triggers = [
        trigger["metadata"] for trigger in scaled["spec"]["triggers"] if trigger["type"] == "kafka"
    ]
    assert tuple(each["topic"] for each in triggers) == Topics.of(settings).to_score
    assert {each["consumerGroup"] for each in triggers} == {prefix + GROUP}
    assert {each["limitToPartitionsWithLag"] for each in triggers} == {"true"}
    assert {each["tls"] for each in triggers} == {"enable"}
    assert scaled["spec"]["maxReplicaCount"] <= 48
    target = workload("worker-gpu", manifests).name
    assert scaled["spec"]["scaleTargetRef"]["name"] == target


def test_keda_goes_by_deadlines_too_where_there_is_a_prometheus():
    rules = yaml.safe_load((chart.ROOT / "deploy/monitoring/rules/scaling.yml").read_text())
    recorded = {rule.get("record") for group in rules["groups"] for rule in group["rules"]}
    (scaled,) = of_kind("ScaledObject", rendered("gpu"))
    (trigger,) = [each for each in scaled["spec"]["triggers"] if each["type"] == "prometheus"]
    assert trigger["metadata"]["serverAddress"] == "http://prometheus.monitoring:9090"
    (named,) = re.findall(r"pairscore\w+", trigger["metadata"]["query"])
    assert named in recorded
    # Desired replicas are what it says, and no more.
    assert (trigger["metricType"], trigger["metadata"]["threshold"]) == ("AverageValue", "1")
    (without,) = of_kind("ScaledObject", rendered("gpu", "workers.gpu.keda.deadlines="))
    assert {each["type"] for each in without["spec"]["triggers"]} == {"kafka"}


@pytest.mark.parametrize(
    "servers",
    ["kafka.example.org:9092", "10.0.0.5:9092,10.0.0.6:9092", "[fd00::5]:9092", "a.kafka, b.kafka"],
)
def test_keda_is_given_brokers_that_are_found_from_its_namespace(servers):
    escaped = servers.replace(",", r"\,")
    (scaled,) = of_kind("ScaledObject", rendered("gpu", f"kafka.bootstrapServers={escaped}"))
    told = {each["metadata"].get("bootstrapServers") for each in scaled["spec"]["triggers"]}
    assert told == {servers, None}


def test_keda_logs_in_to_kafka_by_what_the_readme_has_made():
    (login,) = [block for block in blocks(README, "yaml") if "TriggerAuthentication" in block]
    authentication = yaml.safe_load(login)
    references = authentication["spec"]["secretTargetRef"]
    given = {each["parameter"]: (each["name"], each["key"]) for each in references}
    # What the kafka trigger takes of a CA of its own, with SCRAM; without a certificate and a key.
    assert given.keys() == {"ca", "username", "password"}
    manifests = rendered("gpu")
    (scaled,) = of_kind("ScaledObject", manifests)
    for trigger in scaled["spec"]["triggers"]:
        if trigger["type"] == "kafka":
            assert trigger["authenticationRef"]["name"] == authentication["metadata"]["name"]
            assert trigger["metadata"]["sasl"] == "scram_sha512"
            assert not given.keys() & trigger["metadata"].keys()
    volumes = workload("worker-gpu", manifests).pod["spec"]["volumes"]
    (mounted,) = [each["secret"] for each in volumes if each["name"] == "certificates"]
    assert given["ca"] == (mounted["secretName"], "ca.crt")
    for name, key in given.values():
        (made,) = re.findall(
            rf"create secret generic {name} (.*)", page(README).replace("\\\n", "")
        )
        assert f"={key}" in made


def test_a_full_window_asks_for_no_other_worker():
    window = WorkerSettings.model_fields["window"].default
    for own in values()["workers"].values():
        assert own["keda"]["lagThreshold"] > window


def test_what_is_scaled_is_scaled_by_one():
    for kind, name in (("ScaledObject", "gpu"), ("HorizontalPodAutoscaler", "all")):
        manifests = rendered(name)
        scaled = {each["spec"]["scaleTargetRef"]["name"] for each in of_kind(kind, manifests)}
        assert scaled == {
            each["metadata"]["name"]
            for each in of_kind("Deployment", manifests)
            if "replicas" not in each["spec"]
        }
        assert scaled


def test_an_adapter_has_for_the_hpas_what_they_ask_for():
    (block,) = [block for block in blocks(README, "yaml") if "seriesQuery" in block]
    found = {rule["name"]["as"]: rule for rule in yaml.safe_load(block)["rules"]["custom"]}
    asked = {own["hpa"]["metric"]["name"]: own["hpa"] for own in values()["workers"].values()}
    assert found.keys() == asked.keys()
    for name, rule in found.items():
        # Of each Pod, so that an HPA finds it.
        assert asked[name]["metric"]["type"] == "Pods"
        labels = rule["resources"]["overrides"]
        assert {each["resource"] for each in labels.values()} == {"namespace", "pod"}
        ((series, named),) = re.findall(r"^(\w+)\{(.*)\}$", rule["seriesQuery"])
        assert named.split(",") == [f'{label}!=""' for label in labels]
        assert series.startswith(name.removesuffix("_per_second"))
        assert "by (<<.GroupBy>>)" in rule["metricsQuery"]


def test_the_csv_sink_is_one_with_a_volume_of_its_own():
    (sink,) = of_kind("StatefulSet", rendered())
    assert sink["spec"]["replicas"] == 1
    (claim,) = sink["spec"]["volumeClaimTemplates"]
    mounts = sink["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]
    assert {"name": claim["metadata"]["name"], "mountPath": "/results"} in mounts
    # A broken one would else never be replaced by the upgrade that mends it.
    assert sink["spec"]["podManagementPolicy"] == "Parallel"
    name = sink["metadata"]["name"]
    guide = page(README)
    assert f"patch pvc {claim['metadata']['name']}-{name}-0 " in guide
    assert f"delete statefulset {name} --cascade=orphan\n" in guide


def test_a_file_is_published_by_a_job_that_can_be_made_again():
    manifests = rendered(
        "default", "producer.enabled=true", "producer.configMap=rows", "producer.file=a.csv"
    )
    job = workload("producer", manifests)
    assert job.containers[0]["args"] == ["csv", "/data/a.csv"]
    assert {"name": "file", "configMap": {"name": "rows"}} in job.pod["spec"]["volumes"]
    (made,) = (
        each
        for each in of_kind("Job", manifests)
        if each["metadata"]["labels"]["app.kubernetes.io/component"] == "producer"
    )
    # A name would be taken when the file has been replaced and is to be published again.
    assert made["metadata"]["generateName"] == "pairscore-producer-"
    assert "name" not in made["metadata"]
    assert list(chart.complaints(made, "1.37")) == []
    assert "get jobs --selector app.kubernetes.io/component=producer\n" in page(README)


def test_the_commands_and_values_of_the_readme_are_taken(tmp_path):
    (command,) = re.findall(
        r"helm template (pairscore deploy/kubernetes .*?) \| kubectl create -f -$",
        page(README).replace("\\\n", ""),
        re.MULTILINE,
    )
    values = str(chart.CHART / "ci" / "default.yaml")
    arguments = command.replace("values-now.yaml", values).split()
    made = yaml.safe_load(chart.run_helm("template", *arguments, "--kube-version", "1.37"))
    assert (made["kind"], made["metadata"]["namespace"]) == ("Job", "pairscore")
    examples = [block for block in blocks(README, "yaml") if "kind:" not in block]
    examples = [block for block in examples if "seriesQuery" not in block]
    assert len(examples) >= 2
    for number, example in enumerate(examples):
        file = tmp_path / f"{number}.yaml"
        file.write_text(example)
        assert chart.render("--values", values, "--values", str(file))


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        (["kafka.bootstrapServers="], "kafka.bootstrapServers must be set: host:port,..."),
        (["workers.cpu.replicas=13"], "up to 13 of them and kafka.partitions is 12"),
        (
            ["workers.cpu.keda.enabled=true", "workers.cpu.keda.maxReplicas=13"],
            "up to 13 of them and kafka.partitions is 12",
        ),
        (
            ["workers.cpu.hpa.enabled=true", "workers.gpu.enabled=true"],
            "up to 13 of them and kafka.partitions is 12",
        ),
        (
            ["workers.cpu.keda.enabled=true", "workers.cpu.hpa.enabled=true"],
            "workers.cpu: keda and hpa would scale the same workers; enable one of them",
        ),
        (
            ["workers.gpu.keda.enabled=true", "workers.gpu.keda.minReplicas=20"],
            "workers.gpu.keda: minReplicas is more than maxReplicas",
        ),
        (
            ["workers.cpu.keda.enabled=true"],
            "KEDA looks for fleet-kafka-bootstrap:9092 in its own namespace; write HOST.NAMESPACE:",
        ),
        (
            ["workers.cpu.keda.enabled=true", r"kafka.bootstrapServers=10.0.0.5:9092\, kafka:9092"],
            "kafka.bootstrapServers: KEDA looks for kafka:9092 in its own namespace",
        ),
        (["sinkPostgres.enabled=true"], "sinkPostgres needs a database: set postgres.url or"),
        (["api.enabled=true", "api.open=true"], "api needs a database: set postgres.url or"),
        (
            ["api.enabled=true", "postgres.url=postgresql://db/x"],
            "api: set keys, the Secret with keys.json, or open=true",
        ),
        (
            ["redis.url=redis://r", "redis.urlSecret.name=s"],
            "PAIRSCORE_REDIS__URL: give its value or a Secret that has it, not both",
        ),
        (["producer.enabled=true"], "producer: set file, and claim or configMap, which has it"),
        (["worker.shutdownSecond=3"], "shutdownSecond"),
        (["workers.cpu.replicas=two"], "replicas"),
        (["settings.PAIRSCORE=1"], "PAIRSCORE"),
        (["networkPolicies.kafka.to=null"], "missing property 'to'"),
    ],
)
def test_values_that_cannot_be_are_refused_and_why_is_said(sets, said):
    with pytest.raises(chart.HelmError, match=re.escape(said)):
        rendered("default", *sets)


@pytest.mark.parametrize("name", ["kafka.to", "kafka.ports", "metricsFrom"])
def test_no_peers_are_refused_since_they_would_be_all_there_are(name):
    values = str(chart.CHART / "ci" / "default.yaml")
    with pytest.raises(chart.HelmError, match="minItems"):
        chart.render("--values", values, "--set-json", f"networkPolicies.{name}=[]")


OWNED = re.findall(
    r"^(PAIRSCORE_[A-Z_]+): ", (chart.CHART / "templates" / "_checks.tpl").read_text(), re.MULTILINE
)


@pytest.mark.parametrize(
    "place",
    ["settings", "worker.settings", "workers.cpu.settings", "workers.gpu.settings"]
    + [f"{name}.settings" for name in ("topics", "sinkCsv", "sinkPostgres", "api", "producer")],
)
def test_a_variable_that_a_value_sets_is_refused_in_all_settings(place):
    with pytest.raises(chart.HelmError, match=f"{place}: {OWNED[0]} is set by kafka.bootstrap"):
        rendered("default", f"{place}.{OWNED[0]}=x")


def test_every_variable_that_is_set_from_values_is_one_that_services_know():
    assert len(OWNED) >= 15
    refuse_unknown(dict.fromkeys(OWNED, "x"), SERVICES)
    with pytest.raises(SettingsError):
        refuse_unknown({f"{OWNED[0]}S": "x"}, SERVICES)
    manifests = rendered("all")
    set_by_the_chart = {
        name
        for each in workloads(manifests)
        for name in environment(each, manifests)
        if name.startswith("PAIRSCORE_")
    }
    given = {"LOG_LEVEL", "OTLP_ENDPOINT", "PRECISION", "BACKEND", "WINDOW"}
    assert {
        each for each in set_by_the_chart if each.split("_", 1)[1].split("__")[-1] not in given
    } <= set(OWNED)


def test_every_value_says_what_it_is():
    lines = (chart.CHART / "values.yaml").read_text().splitlines()
    named = [line for line in lines if re.match(r" *[\w.]+:", line)]
    assert len(named) > 100
    for line in named:
        group = line.endswith(":")  # what is in it says what it is
        assert group or " # " in line or re.match(r" +(requests|limits): ", line), line


def test_what_kubernetes_would_refuse_is_said(tmp_path):
    (job,) = of_kind("StatefulSet", rendered())
    assert list(chart.complaints(job, "1.37")) == []
    wrong = {**job, "spec": {**job["spec"], "replica": 1}}
    (said,) = chart.complaints(wrong, "1.37")
    assert said.startswith("StatefulSet pairscore-sink-csv: $.spec: ")
    (scaled,) = of_kind("ScaledObject", rendered("gpu"))
    assert list(chart.complaints(scaled, "1.37")) == []
    wrong = {**scaled, "spec": {**scaled["spec"], "maxReplicas": 1}}
    (said,) = chart.complaints(wrong, "1.37")
    assert "maxReplicas" in said
    unknown = {"kind": "Nothing", "apiVersion": "v1", "metadata": {"name": "x"}}
    assert len(list(chart.complaints(unknown, "1.37"))) == 1
    (tmp_path / "wrong.yaml").write_text("kafka: {bootstrapServer: kafka:9092}\n")
    (said,) = chart.check(tmp_path / "wrong.yaml")
    assert "bootstrapServer" in said


@pytest.mark.parametrize(("ci", "code"), [("true", 1), ("", 0)])
def test_a_missing_helm_fails_the_check_in_ci_and_is_said_elsewhere(ci, code, monkeypatch, capsys):
    monkeypatch.setattr(chart, "helm", lambda: None)
    monkeypatch.setenv("CI", ci)
    assert chart.main() == code
    assert capsys.readouterr().err == f"chart: not checked: {chart.NO_HELM}\n"


def test_the_brokers_of_the_readme_are_told_what_operations_says():
    told = {
        name: value
        for names, value in re.findall(
            r"^\| (`[a-z.`, ]+`) \| `(\w+)`", page("operations.md"), re.MULTILINE
        )
        for name in re.findall(r"`([^`]+)`", names)
    }
    assert len(told) >= 11
    # In a list, so indented.
    (block,) = re.findall(r"^ +```yaml\n(.*?)^ +```$", page(README), re.MULTILINE | re.DOTALL)
    pool, kafka = yaml.safe_load_all(dedent(block))
    assert pool["metadata"]["labels"]["strimzi.io/cluster"] == kafka["metadata"]["name"]
    assert pool["spec"]["replicas"] == 3
    # Which versions there are is for the operator to say, as it is released apart from Kafka.
    assert "version" not in kafka["spec"]["kafka"]
    config = {name: str(value).lower() for name, value in kafka["spec"]["kafka"]["config"].items()}
    assert config.items() >= told.items() - {("offset.metadata.max.bytes", "1024")}
