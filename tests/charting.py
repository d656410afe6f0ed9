"""The chart as helm renders it, and what its manifests say."""

import base64
import re
from collections.abc import Iterator
from functools import cache
from ipaddress import ip_address, ip_network
from typing import Any, NamedTuple

from scripts.chart import CHART, Manifest, name_of, render

KINDS = ("default", "gpu", "all")
LONG_RUNNING = ("Deployment", "StatefulSet")


class Workload(NamedTuple):
    """What has Pods, and the Pod that it has."""

    kind: str
    name: str
    pod: Manifest

    @property
    def labels(self) -> dict[str, str]:
        """Those of its Pods."""
        found: dict[str, str] = self.pod["metadata"]["labels"]
        return found

    @property
    def containers(self) -> list[Any]:
        """All that run in one of its Pods."""
        spec = self.pod["spec"]
        return [*spec["containers"], *spec.get("initContainers", [])]


@cache
def rendered(values: str = "default", *sets: str) -> tuple[Manifest, ...]:
    """The chart with the values of one of the files in ci/, and more of them."""
    more = [part for each in sets for part in ("--set", each)]
    return tuple(render("--values", str(CHART / "ci" / f"{values}.yaml"), *more))


def of_kind(kind: str, manifests: tuple[Manifest, ...]) -> list[Manifest]:
    return [manifest for manifest in manifests if manifest["kind"] == kind]


def workloads(manifests: tuple[Manifest, ...]) -> list[Workload]:
    return [
        Workload(each["kind"], name_of(each), each["spec"]["template"])
        for each in manifests
        if each["kind"] in {*LONG_RUNNING, "Job"}
    ]


def workload(component: str, manifests: tuple[Manifest, ...]) -> Workload:
    (found,) = (
        each
        for each in workloads(manifests)
        if each.labels["app.kubernetes.io/component"] == component
    )
    return found


def selects(selector: Manifest, labels: dict[str, str]) -> bool:
    """Whether a label selector, of the operators that the chart uses, has an object of them."""
    wanted = selector.get("matchLabels", {})
    for expression in selector.get("matchExpressions", []):
        assert expression["operator"] == "In"
        if labels.get(expression["key"]) not in expression["values"]:
            return False
    return all(labels.get(name) == value for name, value in wanted.items())


def policies(of: Workload, manifests: tuple[Manifest, ...]) -> list[Manifest]:
    """The specs of the NetworkPolicies that its Pods have."""
    return [
        policy["spec"]
        for policy in of_kind("NetworkPolicy", manifests)
        if selects(policy["spec"]["podSelector"], of.labels)
    ]


def destinations(of: Workload, manifests: tuple[Manifest, ...]) -> Iterator[Manifest]:
    """All peers that its Pods may connect to."""
    for policy in policies(of, manifests):
        for rule in policy.get("egress", []):
            assert rule["to"], "a rule without peers lets out to anywhere"
            yield from rule["to"]


def reaches(of: Workload, address: str, manifests: tuple[Manifest, ...]) -> bool:
    """Whether its Pods may connect to an address outside of the cluster."""
    ip = ip_address(address)
    return any(
        ip in ip_network(block["cidr"])
        and not any(ip in ip_network(each) for each in block.get("except", []))
        for peer in destinations(of, manifests)
        if (block := peer.get("ipBlock"))
    )


def relabelled(labels: dict[str, str], rules: list[Manifest]) -> dict[str, str]:
    """What Prometheus makes of the labels of a target by relabelings that replace."""
    found = dict(labels)
    for rule in rules:
        assert rule.keys() <= {"sourceLabels", "regex", "replacement", "targetLabel"}
        value = ";".join(found.get(name, "") for name in rule["sourceLabels"])
        # The whole of it, as Prometheus has it; where it is not matched, nothing is replaced.
        if match := re.fullmatch(rule.get("regex", "(.*)"), value):
            template = re.sub(r"\$(\d+)", r"\\g<\1>", rule.get("replacement", "$1"))
            found[rule["targetLabel"]] = match.expand(template)
    return found


def environment(of: Workload, manifests: tuple[Manifest, ...]) -> dict[str, str]:
    """The variables that its container gets; of a Secret of somebody else's: what it is called."""
    configs = {each["metadata"]["name"]: each["data"] for each in of_kind("ConfigMap", manifests)}
    secrets = {each["metadata"]["name"]: each["data"] for each in of_kind("Secret", manifests)}
    (container,) = of.containers
    found: dict[str, str] = {}
    for source in container.get("envFrom", []):
        found |= configs[source["configMapRef"]["name"]]
    for variable in container.get("env", []):
        if "value" in variable:
            found[variable["name"]] = variable["value"]
            continue
        name, key = (variable["valueFrom"]["secretKeyRef"][each] for each in ("name", "key"))
        data = secrets.get(name)
        found[variable["name"]] = (
            f"{name}/{key}" if data is None else base64.b64decode(data[key]).decode()
        )
    return found
