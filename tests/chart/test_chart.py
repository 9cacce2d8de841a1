"""The chart: values that it refuses, manifests that it renders, what a release leaves, and its rights."""

from __future__ import annotations

import json
import re
import subprocess
import tarfile
import uuid
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from tests.conftest import ROOT, tool
from tests.waiting import PATIENCE_S, PATIENTLY, eventually

from django_task_operator.spec import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Kubectl

CHART = ROOT / "charts" / "django-task-operator"
GOLDEN = Path(__file__).parent / "golden"
CRD_FILE = ROOT / "crds" / "djangotasks.dev_djangotaskworkers.yaml"
CRD = "djangotaskworkers.djangotasks.dev"

# All that the operator may do: (API group, resource, verb).
RIGHTS = {
    *(("djangotasks.dev", "djangotaskworkers", verb) for verb in ("get", "list", "watch", "patch")),
    *(("djangotasks.dev", "djangotaskworkers/status", verb) for verb in ("get", "patch")),
    *(("apps", "deployments", verb) for verb in ("get", "list", "watch", "create", "patch")),
    *(
        ("autoscaling", "horizontalpodautoscalers", verb)
        for verb in ("get", "list", "watch", "create", "patch", "delete")
    ),
    *(
        ("policy", "poddisruptionbudgets", verb)
        for verb in ("get", "list", "watch", "create", "patch", "delete")
    ),
    *(("apps", "replicasets", verb) for verb in ("list", "watch")),
    *(("", "pods", verb) for verb in ("list", "watch", "patch")),
    *(
        ("batch", resource, verb)
        for resource in ("jobs", "cronjobs")
        for verb in ("get", "list", "watch", "create", "patch", "delete")
    ),
    ("", "secrets", "get"),
    *(("events.k8s.io", "events", verb) for verb in ("list", "create", "patch")),
}

DIGEST = f"sha256:{'4f' * 32}"

VALUE_SETS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "two namespaces": {"watchNamespaces": ["default", "kube-system"]},
    # For somebody who may install only there.
    "one's own namespaces": {
        "watchNamespaces": ["default"],
        "crds": {"install": False},
        "rbac": {"userRoles": False},
        "metricsApi": {"enabled": False},
    },
    "bare": {
        "crds": {"install": False},
        "rbac": {"create": False, "userRoles": False},
        "serviceAccount": {"create": False, "name": "existing"},
        "metrics": {"service": False},
        "metricsApi": {"enabled": False},
        "resources": {"requests": None, "limits": None},
    },
    "everything": {
        "global": {"imageRegistry": "registry.example:5000/mirror", "imagePullSecrets": ["mirror"]},
        "nameOverride": "tasks",
        "commonLabels": {"team": "platform", "app.kubernetes.io/part-of": "shop"},
        "commonAnnotations": {"example.org/owner": "platform@example.org"},
        "image": {"repository": "operator", "tag": "1.2.3", "digest": DIGEST, "pullPolicy": "Always"},
        "imagePullSecrets": [{"name": "regcred"}],
        "replicas": 2,
        "watchNamespaces": ["default"],
        "networkPolicy": {
            "enabled": True,
            "metricsFrom": [{"namespaceSelector": {"matchLabels": {"team": "monitoring"}}}],
            "egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.1/32"}}], "ports": [{"port": 6443}]}],
        },
        "logLevel": "debug",
        "logFormat": "text",
        "serviceAccount": {"name": "other", "annotations": {"example.org/role": "a"}},
        "metrics": {"annotations": {"prometheus.io/scrape": "true"}},
        "dashboards": {"enabled": True, "annotations": {"grafana_folder": "Django"}},
        "metricsApi": {"port": 10250, "certificateHours": 24},
        "resources": {"requests": {"cpu": 1, "memory": "200Mi"}, "limits": {"cpu": 1.5, "memory": "200Mi"}},
        "extraArgs": ["--log-level=warning"],
        "extraEnv": [
            {"name": "TZ", "value": "Europe/Berlin"},
            {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        ],
        "extraVolumes": [{"name": "authorities", "configMap": {"name": "authorities"}}],
        "extraVolumeMounts": [{"name": "authorities", "mountPath": "/authorities", "readOnly": True}],
        "extraContainers": [
            {"name": "proxy", "image": "registry.example/proxy:1", "ports": [{"containerPort": 3128}]}
        ],
        "extraInitContainers": [{"name": "wait", "image": "registry.example/wait:1", "args": ["for-proxy"]}],
        "extraObjects": [
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": "authorities"},
                "data": {"note": "{{ not a template }}"},
            },
            'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: {{ include "operator.fullname" . }}-more}\n',
        ],
        "podLabels": {"team": "platform", "app.kubernetes.io/part-of": "shop"},
        "podAnnotations": {"prometheus.io/port": "8080"},
        "podSecurityContext": {"fsGroup": 65532, "runAsUser": 10001},
        "containerSecurityContext": {"readOnlyRootFilesystem": False},
        "priorityClassName": "system-cluster-critical",
        "terminationGracePeriodSeconds": 45,
        "hostAliases": [{"ip": "10.20.0.3", "hostnames": ["postgres.internal"]}],
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"key": "a", "operator": "Equal", "value": "b", "effect": "NoSchedule"}],
        "affinity": {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "Exists"}]}]
                }
            }
        },
        "topologySpreadConstraints": [
            {
                "topologyKey": "topology.kubernetes.io/zone",
                "maxSkew": 1,
                "whenUnsatisfiable": "ScheduleAnyway",
            }
        ],
    },
}


def helm(*args: str, values: dict[str, Any] | None = None) -> subprocess.CompletedProcess[str]:
    given = [] if values is None else ["--values", "-"]
    return subprocess.run(
        [tool("helm"), *args, *given],
        input=None if values is None else json.dumps(values),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def render(
    values: dict[str, Any] | None = None,
    *only: str,
    release: str = "django-task-operator",
    namespace: str = "default",
) -> list[dict[str, Any]]:
    shown = [f"--show-only=templates/{name}.yaml" for name in only]
    where = (release, str(CHART), f"--namespace={namespace}")
    # What `helm test` runs is not installed; to see it, name it.
    left_out = [] if shown else ["--skip-tests"]
    done = helm("template", *where, *shown, *left_out, values=values or {})
    assert done.returncode == 0, done.stderr
    return [manifest for manifest in yaml.safe_load_all(done.stdout) if manifest]


def one(manifests: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    (found,) = [manifest for manifest in manifests if manifest["kind"] == kind]
    return found


def test_lint_is_strict() -> None:
    done = helm("lint", "--strict", str(CHART))

    assert done.returncode == 0, done.stdout
    assert "[WARNING]" not in done.stdout


@pytest.mark.parametrize("values", VALUE_SETS.values(), ids=VALUE_SETS)
def test_api_server_takes_what_is_rendered(kubectl: Kubectl, values: dict[str, Any]) -> None:
    manifests = render(values)
    kubectl(
        "apply",
        "--dry-run=server",
        "--validate=strict",
        "-f",
        "-",
        manifest={"apiVersion": "v1", "kind": "List", "items": manifests},
    )


@pytest.mark.parametrize(
    ("values", "kinds"),
    [
        (
            "defaults",
            {
                "CustomResourceDefinition": 1,
                "ServiceAccount": 1,
                "Deployment": 1,
                "Service": 2,
                "Secret": 1,
                "Role": 3,
                "RoleBinding": 4,
                "ClusterRole": 4,
                "ClusterRoleBinding": 2,
            },
        ),
        (
            "two namespaces",
            {
                "CustomResourceDefinition": 1,
                "ServiceAccount": 1,
                "Deployment": 1,
                "Service": 2,
                "Secret": 1,
                "ClusterRole": 3,
                "ClusterRoleBinding": 1,
                "Role": 5,
                "RoleBinding": 6,
            },
        ),
        (
            "one's own namespaces",
            {"ServiceAccount": 1, "Deployment": 1, "Service": 1, "Role": 3, "RoleBinding": 3},
        ),
        ("bare", {"Deployment": 1}),
    ],
)
def test_renders_no_more_than_is_asked_for(values: str, kinds: dict[str, int]) -> None:
    assert Counter(manifest["kind"] for manifest in render(VALUE_SETS[values])) == kinds


def test_definition_is_the_one_of_the_repository() -> None:
    rendered = one(render(), "CustomResourceDefinition")

    assert rendered["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
    assert rendered["metadata"].pop("labels")["app.kubernetes.io/managed-by"] == "Helm"
    assert rendered == yaml.safe_load(CRD_FILE.read_text())


def test_artifact_hub_shows_the_definition_and_an_example_that_is_valid() -> None:
    annotations = yaml.safe_load((CHART / "Chart.yaml").read_text())["annotations"]
    (shown,) = yaml.safe_load(annotations["artifacthub.io/crds"])
    (example,) = yaml.safe_load(annotations["artifacthub.io/crdsExamples"])
    definition = yaml.safe_load(CRD_FILE.read_text())
    (version,) = definition["spec"]["versions"]

    assert shown["name"] == definition["metadata"]["name"]
    assert shown["kind"] == example["kind"] == definition["spec"]["names"]["kind"]
    assert shown["version"] == version["name"]
    assert example["apiVersion"] == f"{definition['spec']['group']}/{version['name']}"
    stored = {**example["metadata"], "uid": "0", "generation": 1}
    assert Worker.parse({**example, "metadata": stored}).spec.queues == ("default",)
    # All that is written is in the schema: the parser ignores what it does not know.
    assert not list(unknown(example["spec"], version["schema"]["openAPIV3Schema"]["properties"]["spec"]))


def unknown(value: Any, schema: dict[str, Any], path: str = "spec") -> Iterator[str]:
    """The fields that the schema does not have."""
    for key, inner in value.items() if isinstance(value, dict) else ():
        if key in schema.get("properties", {}):
            yield from unknown(inner, schema["properties"][key], f"{path}.{key}")
        else:
            yield f"{path}.{key}"


def test_package_has_the_definition(tmp_path: Path) -> None:
    done = helm("package", str(CHART), f"--destination={tmp_path}")
    assert done.returncode == 0, done.stderr
    (package,) = tmp_path.glob("*.tgz")

    with tarfile.open(package) as archive:
        packed = archive.extractfile("django-task-operator/files/crd.yaml")
        assert packed is not None
        assert packed.read() == CRD_FILE.read_bytes()
    assert helm("template", "a", str(package)).stdout == helm("template", "a", str(CHART)).stdout


def test_deployment_is_locked_down() -> None:
    pod = one(render(), "Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]

    assert pod["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "runAsGroup": 65532,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["volumeMounts"] == [{"name": "tmp", "mountPath": "/tmp"}]


@pytest.mark.parametrize(
    ("pod_security", "is_openshift", "has_user"),
    [
        ("Auto", False, True),
        ("Auto", True, False),
        ("Restricted", True, True),
        ("Platform", False, False),
    ],
)
def test_pods_have_a_user_of_their_own_unless_the_platform_gives_them_one(
    pod_security: str, is_openshift: bool, has_user: bool
) -> None:
    served = ["--api-versions=security.openshift.io/v1"] if is_openshift else []
    done = helm("template", "a", str(CHART), *served, values={"podSecurity": pod_security})
    assert done.returncode == 0, done.stderr
    pod = one(list(yaml.safe_load_all(done.stdout)), "Deployment")["spec"]["template"]["spec"]

    assert ("--pod-security=platform" in pod["containers"][0]["args"]) is not has_user
    assert {"runAsUser", "runAsGroup"} & pod["securityContext"].keys() == (
        {"runAsUser", "runAsGroup"} if has_user else set()
    )
    # Either way the strictest Pod Security Standard admits it.
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}


def test_restricted_namespace_admits_the_operator_and_its_test(kubectl: Kubectl, namespace: str) -> None:
    kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    template = one(render(namespace=namespace), "Deployment")["spec"]["template"]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "operator", "labels": template["metadata"]["labels"]},
        "spec": {**template["spec"], "serviceAccountName": "default"},
    }
    # A real API server gives the service account a moment after the namespace.
    kubectl("wait", "--for=create", PATIENTLY, "serviceaccount/default", f"--namespace={namespace}")

    kubectl.within(namespace)("create", "--dry-run=server", "-f", "-", manifest=pod)


def test_arguments_follow_the_values() -> None:
    def arguments(values: dict[str, Any]) -> list[str]:
        (container,) = one(render(values), "Deployment")["spec"]["template"]["spec"]["containers"]
        return list(container["args"])

    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    assert arguments({}) == [
        "--log-level=info",
        "--log-format=json",
        "--port=8080",
        "--lease=django-task-operator",
        "--hash-key-secret=django-task-operator-hash-key",
        f"--runtime-image=django-task-worker:{version}",
        "--refuse-database-network=127.0.0.0/8",
        "--refuse-database-network=::1/128",
        "--refuse-database-network=169.254.0.0/16",
        "--refuse-database-network=fe80::/10",
        "--metrics-api-service=django-task-operator-metrics-api",
        "--metrics-api-port=8443",
        "--metrics-api-owner=django-task-operator-metrics-api",
        "--metrics-api-secret=django-task-operator-metrics-api",
        "--metrics-api-certificate-hours=2160",
    ]
    worker_image = {"repository": "registry.example/worker", "tag": "2", "revision": "b"}
    values: dict[str, Any] = {"watchNamespaces": ["a", "b"], "logLevel": "debug", "logFormat": "text"}
    values |= {"metricsApi": {"enabled": False}, "podTemplates": {"restricted": True}}
    values["databaseNetworks"] = {"allowed": ["10.0.0.0/8"], "refused": []}
    assert arguments({**values, "workerImage": worker_image}) == [
        "--watch-namespace=a",
        "--watch-namespace=b",
        "--log-level=debug",
        "--log-format=text",
        "--port=8080",
        "--lease=django-task-operator",
        "--hash-key-secret=django-task-operator-hash-key",
        "--runtime-image=registry.example/worker:2",
        "--runtime-revision=b",
        "--allow-database-network=10.0.0.0/8",
        "--restrict-pod-templates",
    ]


@pytest.mark.parametrize(
    ("image", "registry", "expected"),
    [
        ({}, "", ":{version}"),
        ({"tag": "2"}, "", ":2"),
        ({"digest": DIGEST}, "", f"@{DIGEST}"),
        ({"tag": "2", "digest": DIGEST}, "", f":2@{DIGEST}"),
        ({}, "registry.example", ":{version}"),
        ({"digest": DIGEST}, "registry.example:5000/mirror/", f"@{DIGEST}"),
    ],
)
def test_images(image: dict[str, str], registry: str, expected: str) -> None:
    values = {"image": image, "workerImage": image, "global": {"imageRegistry": registry}}
    (container,) = one(render(values), "Deployment")["spec"]["template"]["spec"]["containers"]
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    before, after = f"{registry.rstrip('/')}/".lstrip("/"), expected.format(version=version)

    assert container["image"] == f"{before}django-task-operator{after}"
    assert f"--runtime-image={before}django-task-worker{after}" in container["args"]


def test_secrets_for_the_registry_come_from_both_places() -> None:
    values = {
        "global": {"imagePullSecrets": ["a", {"name": "b"}], "anotherChart": "may read this"},
        "imagePullSecrets": [{"name": "c"}],
    }
    pod = one(render(values), "Deployment")["spec"]["template"]["spec"]

    assert pod["imagePullSecrets"] == [{"name": "a"}, {"name": "b"}, {"name": "c"}]


@pytest.mark.parametrize(
    ("values", "release", "name"),
    [
        ({}, "django-task-operator", "django-task-operator"),
        ({}, "shop", "shop-django-task-operator"),
        ({"nameOverride": "tasks"}, "shop", "shop-tasks"),
        ({"nameOverride": "tasks"}, "tasks", "tasks"),
        ({"fullnameOverride": "workers"}, "shop", "workers"),
        ({"fullnameOverride": "workers", "nameOverride": "tasks"}, "shop", "workers"),
    ],
)
def test_names(values: dict[str, str], release: str, name: str) -> None:
    manifests = render(values, release=release)
    deployment = one(manifests, "Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"]

    assert deployment["metadata"]["name"] == name
    assert f"--lease={name}" in deployment["spec"]["template"]["spec"]["containers"][0]["args"]
    assert labels["app.kubernetes.io/name"] == values.get("nameOverride", "django-task-operator")
    assert deployment["spec"]["selector"]["matchLabels"].items() <= labels.items()
    for manifest in manifests:
        if manifest["kind"] != "CustomResourceDefinition":
            assert manifest["metadata"]["name"].startswith(name)
        if manifest["kind"] == "Service":
            selected = {**labels, "djangotasks.dev/leader": name}
            assert manifest["spec"]["selector"].items() <= selected.items()


@pytest.mark.parametrize("by_cert_manager", [False, True])
def test_every_object_has_the_common_labels_and_annotations(by_cert_manager: bool) -> None:
    everything = {
        "replicas": 2,
        "metricsApi": {"certManager": {"enabled": by_cert_manager}},
        **{
            key: {"enabled": True}
            for key in ("networkPolicy", "serviceMonitor", "podMonitor", "prometheusRule")
        },
    }
    own = {
        "serviceAccount": {"annotations": {"example.org/role": "a"}},
        "metrics": {"annotations": {"prometheus.io/scrape": "true"}},
    }
    labels = {"team": "platform", "app.kubernetes.io/part-of": "shop"}
    marks = {"example.org/owner": "ada", "example.org/role": "b"}
    common = {"commonLabels": labels, "commonAnnotations": marks}
    before, after = render({**everything, **own}), render({**everything, **own, **common})

    assert len(before) == len(after) >= 20
    for plain, marked in zip(before, after, strict=True):
        was, has = plain.pop("metadata"), marked.pop("metadata")
        assert has["labels"] == was["labels"] | labels
        # What an object has by itself stays.
        assert has["annotations"] == marks | was.get("annotations", {})
        if plain["kind"] == "Deployment":
            template = plain["spec"]["template"]["metadata"]
            assert marked["spec"]["template"].pop("metadata") == {"labels": template["labels"] | labels}
            assert marked["spec"]["template"] == {"spec": plain["spec"]["template"]["spec"]}
            assert marked["spec"]["selector"] == plain["spec"]["selector"]
        else:
            assert marked == plain


@pytest.mark.parametrize(
    "more", [{}, {"metricsApi": {"certManager": {"enabled": True}}}], ids=["alone", "beside a certificate"]
)
def test_what_is_extra_comes_after_the_charts_own(more: dict[str, Any]) -> None:
    keys = ("extraArgs", "extraEnv", "extraVolumes", "extraVolumeMounts")
    extra = {key: VALUE_SETS["everything"][key] for key in keys}
    before = one(render(more), "Deployment")["spec"]["template"]["spec"]
    after = one(render({**more, **extra}), "Deployment")["spec"]["template"]["spec"]
    (bare,), (container,) = before["containers"], after["containers"]

    assert container["args"] == [*bare["args"], *extra["extraArgs"]]
    assert container["env"] == [*bare["env"], *extra["extraEnv"]]
    assert container["volumeMounts"] == [*bare["volumeMounts"], *extra["extraVolumeMounts"]]
    assert after["volumes"] == [*before["volumes"], *extra["extraVolumes"]]


def test_the_whole_deployment_with_every_value() -> None:
    """golden/deployment.yaml is for people to read: what each value of "everything" becomes."""
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["version"]
    rendered = one(render(VALUE_SETS["everything"], "deployment"), "Deployment")
    text = yaml.safe_dump(rendered, sort_keys=False).replace(version, "VERSION")

    assert text == (GOLDEN / "deployment.yaml").read_text()


def test_containers_of_ones_own_stand_beside_the_operator() -> None:
    extra = {key: VALUE_SETS["everything"][key] for key in ("extraContainers", "extraInitContainers")}
    before = one(render(), "Deployment")["spec"]["template"]["spec"]
    after = one(render(extra), "Deployment")["spec"]["template"]["spec"]

    assert after.pop("initContainers") == extra["extraInitContainers"]
    assert after.pop("containers") == [*before.pop("containers"), *extra["extraContainers"]]
    assert after == before


def test_objects_of_ones_own_are_taken_as_they_are_and_text_as_a_template() -> None:
    extra = {"extraObjects": VALUE_SETS["everything"]["extraObjects"]}
    as_it_is, templated = render(extra, "extra-objects", release="shop")

    assert as_it_is == extra["extraObjects"][0]
    assert templated["metadata"] == {"name": "shop-django-task-operator-more"}
    assert len(render(extra)) == len(render()) + 2


def test_a_field_of_a_security_context_replaces_the_charts() -> None:
    values = {
        "podSecurityContext": {"fsGroup": 1, "seccompProfile": {"type": "Unconfined"}},
        "containerSecurityContext": {"readOnlyRootFilesystem": False},
    }
    pod = one(render(values), "Deployment")["spec"]["template"]["spec"]

    assert pod["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "runAsGroup": 65532,
        "fsGroup": 1,
        "seccompProfile": {"type": "Unconfined"},
    }
    assert pod["containers"][0]["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": False,
        "capabilities": {"drop": ["ALL"]},
    }


def test_pods_are_spread_among_their_own_unless_a_constraint_names_others() -> None:
    zones = {"topologyKey": "topology.kubernetes.io/zone", "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule"}
    others = {**zones, "labelSelector": {"matchLabels": {"team": "platform"}}}
    deployment = one(render({"topologySpreadConstraints": [zones, others]}), "Deployment")["spec"]

    own = {**zones, "labelSelector": deployment["selector"]}
    assert deployment["template"]["spec"]["topologySpreadConstraints"] == [own, others]


def test_operator_knows_its_arguments() -> None:
    template = one(render(VALUE_SETS["everything"]), "Deployment")["spec"]["template"]
    container = template["spec"]["containers"][0]
    done = subprocess.run(
        [ROOT / "build/venv/bin/python", "-m", "django_task_operator", "--help"],
        env={"PYTHONPATH": str(ROOT / "operator")},
        capture_output=True,
        text=True,
        check=True,
    )

    assert {argument.split("=")[0] for argument in container["args"]} <= set(
        re.findall(r"--[a-z-]+", done.stdout)
    )


@pytest.mark.parametrize(
    ("values", "path", "key"),
    [
        ({"watchNamespace": "shop"}, "''", "'watchNamespace'"),
        ({"replicaCount": 2}, "''", "'replicaCount'"),
        ({"image": {"tga": "1"}}, "'/image'", "'tga'"),
        ({"imagePullSecrets": [{"nam": "a"}]}, "'/imagePullSecrets/0'", "'nam'"),
        ({"networkPolicy": {"ingress": []}}, "'/networkPolicy'", "'ingress'"),
        ({"networkPolicy": {"egress": [{"too": []}]}}, "'/networkPolicy/egress/0'", "'too'"),
        ({"crds": {"instal": True}}, "'/crds'", "'instal'"),
        ({"rbac": {"creat": True}}, "'/rbac'", "'creat'"),
        ({"serviceAccount": {"nam": "a"}}, "'/serviceAccount'", "'nam'"),
        ({"metrics": {"enabled": True}}, "'/metrics'", "'enabled'"),
        ({"metricsApi": {"enable": True}}, "'/metricsApi'", "'enable'"),
        ({"metricsApi": {"certManager": {"issuer": {}}}}, "'/metricsApi/certManager'", "'issuer'"),
        ({"resources": {"limit": {}}}, "'/resources'", "'limit'"),
        ({"tolerations": [{"effects": "NoSchedule"}]}, "'/tolerations/0'", "'effects'"),
        ({"affinity": {"node": {}}}, "'/affinity'", "'node'"),
        (
            {
                "topologySpreadConstraints": [
                    {"topologyKey": "a", "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule", "skew": 1}
                ]
            },
            "'/topologySpreadConstraints/0'",
            "'skew'",
        ),
        ({"hostAliases": [{"ip": "10.20.0.3", "hostname": "a"}]}, "'/hostAliases/0'", "'hostname'"),
        ({"extraEnv": [{"name": "A", "val": "b"}]}, "'/extraEnv/0'", "'val'"),
        (
            {"extraVolumeMounts": [{"name": "a", "mountPath": "/a", "readonly": True}]},
            "'/extraVolumeMounts/0'",
            "'readonly'",
        ),
    ],
)
def test_names_the_typo(values: dict[str, Any], path: str, key: str) -> None:
    done = helm("template", "a", str(CHART), values=values)

    assert done.returncode != 0
    assert f"at {path}: additional properties {key} not allowed" in done.stderr


@pytest.mark.parametrize(
    ("values", "path"),
    [
        ({"watchNamespaces": "shop"}, "/watchNamespaces"),
        ({"watchNamespaces": ["Shop"]}, "/watchNamespaces/0"),
        ({"watchNamespaces": ["shop", "shop"]}, "/watchNamespaces"),
        ({"logLevel": "loud"}, "/logLevel"),
        ({"image": {"pullPolicy": "always"}}, "/image/pullPolicy"),
        ({"networkPolicy": {"metricsFrom": [{}]}}, "/networkPolicy/metricsFrom/0"),
        ({"crds": {"install": "yes"}}, "/crds/install"),
        ({"image": {"digest": "4f4f"}}, "/image/digest"),
        ({"workerImage": {"digest": "sha256:4F"}}, "/workerImage/digest"),
        ({"global": {"imageRegistry": "https://registry.example"}}, "/global/imageRegistry"),
        ({"nameOverride": "Tasks"}, "/nameOverride"),
        ({"fullnameOverride": "a" * 54}, "/fullnameOverride"),
        ({"extraContainers": [{"name": "operator", "image": "a"}]}, "/extraContainers/0/name"),
        ({"extraInitContainers": [{"name": "operator", "image": "a"}]}, "/extraInitContainers/0/name"),
        ({"terminationGracePeriodSeconds": "45s"}, "/terminationGracePeriodSeconds"),
        ({"hostAliases": [{"ip": "10.20.0.3"}]}, "/hostAliases/0"),
        (
            {"topologySpreadConstraints": [{"topologyKey": "a", "whenUnsatisfiable": "DoNotSchedule"}]},
            "/topologySpreadConstraints/0",
        ),
        ({"commonAnnotations": {"example.org/number": 1}}, "/commonAnnotations/example.org~1number"),
        ({"metricsApi": {"port": 443}}, "/metricsApi/port"),
        ({"metricsApi": {"certificateHours": 0}}, "/metricsApi/certificateHours"),
        ({"podAnnotations": {"prometheus.io/port": 8080}}, "/podAnnotations/prometheus.io~1port"),
        ({"extraArgs": ["log-level=debug"]}, "/extraArgs/0"),
        ({"extraEnv": [{"name": "POD_NAME", "value": "a"}]}, "/extraEnv/0/name"),
        ({"extraVolumes": [{"name": "tmp", "emptyDir": {}}]}, "/extraVolumes/0/name"),
        ({"extraVolumeMounts": [{"name": "a", "mountPath": "/tmp"}]}, "/extraVolumeMounts/0/mountPath"),
    ],
)
def test_names_the_wrong_value(values: dict[str, Any], path: str) -> None:
    done = helm("template", "a", str(CHART), values=values)

    assert done.returncode != 0
    assert f"at '{path}'" in done.stderr


@pytest.mark.parametrize("value", ["podLabels", "commonLabels"])
def test_refuses_a_label_that_selects_the_pod(value: str) -> None:
    done = helm("template", "a", str(CHART), values={value: {"app.kubernetes.io/name": "other"}})

    assert "invalid propertyName 'app.kubernetes.io/name'" in done.stderr


def test_asks_for_the_name_of_a_service_account_that_exists() -> None:
    done = helm("template", "a", str(CHART), values={"serviceAccount": {"create": False}})

    assert "serviceAccount.name: name the existing service account" in done.stderr


def test_refuses_an_old_kubernetes() -> None:
    done = helm("template", "a", str(CHART), "--kube-version=1.29.9")

    assert "chart requires kubeVersion: >=1.30.0-0" in done.stderr
    assert helm("template", "a", str(CHART), "--kube-version=1.30.0").returncode == 0


def leaves(values: dict[str, Any], path: str = "") -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, dict) and value and key != "resources":
            yield from leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}"


def test_every_value_is_in_the_readme_and_the_schema() -> None:
    values = list(leaves(yaml.safe_load((CHART / "values.yaml").read_text())))
    told = re.findall(r"^\| `([\w.]+)` \|", (CHART / "README.md").read_text(), re.MULTILINE)
    schema = json.loads((CHART / "values.schema.json").read_text())

    def known(schema: dict[str, Any], path: str = "") -> Iterator[str]:
        for key, inner in schema.get("properties", {}).items():
            if key == "resources" or "properties" not in inner:
                yield f"{path}{key}"
            else:
                yield from known(inner, f"{path}{key}.")

    assert [name for name in told if name in values] == values
    # affinity is open to the API server's own fields.
    inner = {name for name in known(schema) if not name.startswith("affinity.")} | {"affinity"}
    assert inner == set(values)


def test_the_readme_names_every_choice_and_the_default_is_one() -> None:
    """The README's table comes from the comments in values.yaml, and only the schema refuses values."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    rows = re.findall(r"^\| `([\w.]+)` \| (.*)", (CHART / "README.md").read_text(), re.MULTILINE)
    table = dict(rows)
    choices = {}
    for name in leaves(values):
        field, value = schema, values
        for part in name.split("."):
            field, value = field["properties"].get(part, {}), value[part]
            field = schema["definitions"].get(field.get("$ref", "").rpartition("/")[2], field)
        if "enum" in field:
            choices[name] = field["enum"]
            assert value in field["enum"]
    untold = {
        f"{name}: {choice}"
        for name, allowed in choices.items()
        for choice in allowed
        if f"`{choice}`" not in table[name]
    }
    assert {"logLevel", "logFormat", "podSecurity", "image.pullPolicy"} <= choices.keys()
    assert untold == set()


def granted(role: dict[str, Any]) -> Counter[tuple[str, str, str]]:
    return Counter(
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    )


@pytest.mark.parametrize(("values", "kind"), [({}, "ClusterRole"), ({"watchNamespaces": ["a"]}, "Role")])
def test_role_is_the_least(values: dict[str, Any], kind: str) -> None:
    role = one(render(values, "rbac"), kind)

    assert granted(role) == Counter(RIGHTS)
    assert all(set(rule) == {"apiGroups", "resources", "verbs"} for rule in role["rules"])


def test_watched_namespaces_alone() -> None:
    manifests = render(VALUE_SETS["two namespaces"], "rbac")

    assert sorted((m["kind"], m["metadata"]["namespace"]) for m in manifests) == [
        ("Role", "default"),
        ("Role", "kube-system"),
        ("RoleBinding", "default"),
        ("RoleBinding", "kube-system"),
    ]


def test_the_hash_key_needs_no_more_than_this() -> None:
    role = one(render({"watchNamespaces": ["a"]}, "hash-key", namespace="ops"), "Role")

    assert role["metadata"]["namespace"] == "ops"
    assert granted(role) == Counter({("", "secrets", "create"), ("", "secrets", "get")})
    assert [(rule["verbs"], rule.get("resourceNames")) for rule in role["rules"]] == [
        (["create"], None),
        (["get"], ["django-task-operator-hash-key"]),
    ]


def test_the_metrics_api_needs_no_more_than_this() -> None:
    manifests = render({}, "metrics-api")
    name = "django-task-operator-metrics-api"
    cluster, namespaced = one(manifests, "ClusterRole"), one(manifests, "Role")

    assert granted(cluster) == Counter(
        {
            *(
                ("apiregistration.k8s.io", "apiservices", verb)
                for verb in ("list", "watch", "create", "patch")
            ),
            ("authorization.k8s.io", "subjectaccessreviews", "create"),
            ("rbac.authorization.k8s.io", "clusterroles", "get"),
        }
    )
    assert [rule.get("resourceNames") for rule in cluster["rules"]] == [
        ["v1beta1.external.metrics.k8s.io"],
        None,
        [name],
    ]
    assert granted(namespaced) == Counter({("", "secrets", "get"), ("", "secrets", "patch")})
    assert [rule["resourceNames"] for rule in namespaced["rules"]] == [[name]]
    (reader,) = [
        m for m in manifests if m["kind"] == "RoleBinding" and m["metadata"]["namespace"] == "kube-system"
    ]
    assert reader["roleRef"]["name"] == "extension-apiserver-authentication-reader"


def test_without_the_metrics_api_there_is_nothing_of_it() -> None:
    text = json.dumps(render({"metricsApi": {"enabled": False}}))

    assert "metrics-api" not in text
    assert "external.metrics.k8s.io" not in text
    kinds = {manifest["kind"] for manifest in render(VALUE_SETS["one's own namespaces"])}
    assert not any(kind.startswith("Cluster") for kind in kinds)


def test_the_service_leads_to_the_port_of_the_metrics_api() -> None:
    manifests = render({"metricsApi": {"port": 10250}})
    (service,) = [
        m
        for m in manifests
        if m["metadata"]["name"] == "django-task-operator-metrics-api" and m["kind"] == "Service"
    ]
    pod = one(manifests, "Deployment")["spec"]["template"]

    assert service["spec"]["ports"] == [{"name": "https", "port": 443, "targetPort": "metrics-api"}]
    # The pod that leads gives itself the one label that the template does not have.
    missing = service["spec"]["selector"].items() - pod["metadata"]["labels"].items()
    assert missing == {("djangotasks.dev/leader", "django-task-operator")}
    assert {"name": "metrics-api", "containerPort": 10250} in pod["spec"]["containers"][0]["ports"]


DNS = {"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]}


@pytest.mark.parametrize(
    ("values", "metrics_api", "ingress", "egress"),
    [
        ({}, True, [{"ports": [{"port": "http"}]}, {"ports": [{"port": "metrics-api"}]}], None),
        ({}, False, [{"ports": [{"port": "http"}]}], None),
        (
            VALUE_SETS["everything"]["networkPolicy"],
            False,
            [
                {
                    "ports": [{"port": "http"}],
                    "from": VALUE_SETS["everything"]["networkPolicy"]["metricsFrom"],
                }
            ],
            [DNS, *VALUE_SETS["everything"]["networkPolicy"]["egress"]],
        ),
    ],
    ids=["from everywhere", "without the metrics API", "from and to some"],
)
def test_network_policy(
    values: dict[str, Any],
    metrics_api: bool,
    ingress: list[dict[str, Any]],
    egress: list[dict[str, Any]] | None,
) -> None:
    given = {"networkPolicy": {**values, "enabled": True}, "metricsApi": {"enabled": metrics_api}}
    manifests = render(given)
    policy, pod = one(manifests, "NetworkPolicy")["spec"], one(manifests, "Deployment")["spec"]["template"]

    assert policy["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    assert policy["ingress"] == ingress
    assert policy.get("egress") == egress
    # A type without rules would let nothing through.
    assert policy["policyTypes"] == (["Ingress"] if egress is None else ["Ingress", "Egress"])
    # Ports by their names in the pod; one that the pod does not have would never match.
    names = {port["name"] for port in pod["spec"]["containers"][0]["ports"]}
    assert {port["port"] for rule in ingress for port in rule["ports"]} == names


def test_the_network_policy_of_the_page_on_security() -> None:
    page = (ROOT / "docs" / "security.md").read_text()
    (values,) = re.findall(r"```yaml\n# values\.yaml\n(.*?)```", page, re.DOTALL)
    policy = one(render(yaml.safe_load(values)), "NetworkPolicy")["spec"]

    assert policy["egress"][0] == DNS
    assert len(policy["egress"]) == 3


def test_a_long_release_name_leaves_room_for_the_services() -> None:
    names = [m["metadata"]["name"] for m in render(release="r" * 53) if m["kind"] == "Service"]

    assert len(set(names)) == 2
    assert max(map(len, names)) <= 63


@pytest.mark.parametrize(
    ("issuer", "expected", "kinds"),
    [
        ({}, {"name": "django-task-operator-metrics-api", "kind": "Issuer"}, {"Issuer", "Certificate"}),
        (
            {"name": "ours", "kind": "ClusterIssuer"},
            {"name": "ours", "kind": "ClusterIssuer"},
            {"Certificate"},
        ),
    ],
)
def test_cert_manager_makes_the_certificate(
    issuer: dict[str, str], expected: dict[str, str], kinds: set[str]
) -> None:
    manifests = render({"metricsApi": {"certManager": {"enabled": True, "issuerRef": issuer}}})
    certificate = one(manifests, "Certificate")["spec"]
    pod = one(manifests, "Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]

    assert {m["kind"] for m in manifests if m["apiVersion"] == "cert-manager.io/v1"} == kinds
    assert certificate["issuerRef"] == expected
    assert certificate["dnsNames"] == ["django-task-operator-metrics-api.default.svc"]
    # The operator reads it from a volume: it needs no right to the Secret, nor does it make one.
    assert pod["volumes"][-1] == {"name": "metrics-api", "secret": {"secretName": certificate["secretName"]}}
    assert container["volumeMounts"][-1]["mountPath"] == "/certificate"
    assert "--metrics-api-certificate-directory=/certificate" in container["args"]
    assert not any(m["kind"] == "Secret" for m in manifests)
    assert "secrets" not in {
        resource
        for manifest in manifests
        if manifest["kind"] == "Role" and manifest["metadata"]["name"].endswith("-metrics-api")
        for rule in manifest["rules"]
        for resource in rule["resources"]
    }


@pytest.fixture
def release(kubectl: Kubectl, namespace: str) -> Iterator[Callable[..., str]]:
    """Apply templates of a release for this test; return the user name of its service account."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    applied: list[dict[str, Any]] = []

    def apply(values: dict[str, Any], *only: str) -> str:
        manifests = render(values, *only, release=name, namespace=namespace)
        applied.extend(manifests)
        kubectl("apply", "-f", "-", manifest={"apiVersion": "v1", "kind": "List", "items": manifests})
        return f"system:serviceaccount:{namespace}:{name}-django-task-operator"

    yield apply
    kubectl("delete", "-f", "-", manifest={"apiVersion": "v1", "kind": "List", "items": applied})


def rights(kubectl: Kubectl, user: str, namespace: str) -> set[tuple[str, str, str]]:
    """The user's rights there, according to the API server, beyond those of every service account."""

    def lines(who: str) -> set[str]:
        # The groups of every service account, so that only the user's own bindings make the difference.
        groups = ("--as-group=system:serviceaccounts", "--as-group=system:authenticated")
        listed = kubectl("auth", "can-i", "--list", f"--as={who}", *groups, f"--namespace={namespace}")
        return set(listed.splitlines())

    rows = lines(user) - lines("system:serviceaccount:default:somebody-else")
    found = set()
    for row in rows:
        match = re.fullmatch(r"(\S+)\s+\[\]\s+\[\]\s+\[(.*)\]", row)
        assert match, row
        resource, _, group = match[1].partition(".")
        # kubectl writes djangotaskworkers.djangotasks.dev/status.
        group, _, part = group.partition("/")
        found |= {(group, f"{resource}/{part}" if part else resource, verb) for verb in match[2].split()}
    return found


def test_api_server_grants_that_and_no_more(
    kubectl: Kubectl, namespace: str, release: Callable[..., str]
) -> None:
    user = release({}, "rbac", "serviceaccount")

    assert rights(kubectl, user, namespace) == RIGHTS
    assert rights(kubectl, user, "kube-system") == RIGHTS


def test_api_server_grants_nothing_outside_the_watched_namespaces(
    kubectl: Kubectl, namespace: str, release: Callable[..., str]
) -> None:
    user = release({"watchNamespaces": [namespace]}, "rbac", "serviceaccount")

    assert rights(kubectl, user, namespace) == RIGHTS
    assert rights(kubectl, user, "default") == set()


@pytest.mark.parametrize(
    ("role", "may", "may_not"),
    [
        ("view", ["get", "list", "watch"], ["create", "patch", "delete"]),
        ("edit", ["get", "list", "watch", "create", "patch", "update", "delete", "deletecollection"], []),
        ("admin", ["get", "list", "watch", "create", "patch", "update", "delete", "deletecollection"], []),
    ],
)
def test_roles_of_people_include_workers(
    kubectl: Kubectl,
    namespace: str,
    release: Callable[..., str],
    role: str,
    may: list[str],
    may_not: list[str],
) -> None:
    release({}, "user-roles")
    kubectl("create", "rolebinding", "ada", f"--clusterrole={role}", "--user=ada", f"--namespace={namespace}")

    def allowed(verb: str, *what: str) -> bool:
        asked = kubectl.run("auth", "can-i", verb, CRD, *what, "--as=ada", f"--namespace={namespace}")
        return asked.stdout.strip() == "yes"

    # The controller that aggregates roles takes a moment.
    eventually(lambda: all(map(allowed, may)), f"{may} are allowed", every_s=0.5)
    assert {verb for verb in may_not if allowed(verb)} == set()
    assert not allowed("patch", "--subresource=status")
