"""The types, bounds and defaults of the CRD on a real API server, and what it accepts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from tests.integration.workers import (
    ABSENT,
    MINIMAL,
    Refused,
    by_parts,
    changed,
    check,
    containers,
    env,
    refused,
    worker,
)

if TYPE_CHECKING:
    from tests.conftest import Kubectl

MISSING = "Required value"
BY_SCHEMA = {
    "no spec": refused(changed(MINIMAL, {"spec": ABSENT}), "spec", MISSING),
    "no image": refused(worker(image=ABSENT), "spec.image", MISSING),
    "no database": refused(worker(database=ABSENT), "spec.database", MISSING),
    "another policy": refused(
        worker(database={"urlChangePolicy": "Restart"}),
        "spec.database.urlChangePolicy",
        'Unsupported value: "Restart"',
    ),
    "authority without a name": refused(
        worker(database={"sslRootCertSecretRef": {"key": "ca.crt"}}),
        "spec.database.sslRootCertSecretRef.name",
        MISSING,
    ),
    "password without a key": refused(
        by_parts(password={}), "spec.database.connection.password.key", MISSING
    ),
    "another engine": refused(
        by_parts(engine="Oracle"), "spec.database.connection.engine", '"PostgreSQL"', '"MySQL"'
    ),
    **{
        f"connection without {part}": refused(
            by_parts(**{part: ABSENT}), f"spec.database.connection.{part}", MISSING
        )
        for part in ("engine", "secretRef", "host", "name", "user", "password")
    },
    "no secret's name": refused(
        worker(database={"urlSecretRef": {"name": ABSENT}}), "spec.database.urlSecretRef.name", MISSING
    ),
    "pull policy": refused(
        worker(imagePullPolicy="Sometimes"), "spec.imagePullPolicy", '"IfNotPresent"', '"Never"'
    ),
    "pull secret without a name": refused(
        worker(imagePullSecrets=[{}]), "spec.imagePullSecrets[0].name", MISSING
    ),
    "managePy as a line": refused(
        worker(managePy="python manage.py"), "spec.managePy", "must be of type array"
    ),
    "queues as a word": refused(worker(queues="emails"), "spec.queues", "must be of type array"),
    "queue as a number": refused(worker(queues=[1]), "spec.queues[0]", "must be of type string"),
    "verbosity low": refused(worker(verbosity=-1), "spec.verbosity", "greater than or equal to 0"),
    "verbosity high": refused(worker(verbosity=4), "spec.verbosity", "less than or equal to 3"),
    "runtimeUpgrade unknown": refused(
        worker(runtimeUpgrade="Always"), "spec.runtimeUpgrade", '"OnNextRollout"', '"Staged"'
    ),
    "runtime unknown": refused(worker(runtime="Celery"), "spec.runtime", '"Injected"', '"Stock"'),
    "no processes": refused(worker(processes=0), "spec.processes", "greater than or equal to 1"),
    "processes absurd": refused(worker(processes=65), "spec.processes", "less than or equal to 64"),
    "no threads": refused(worker(threads=0), "spec.threads", "greater than or equal to 1"),
    "threads absurd": refused(worker(threads=65), "spec.threads", "less than or equal to 64"),
    "prodserver without an entry": refused(worker(prodserver={}), "spec.prodserver.process", MISSING),
    "interval as a duration": refused(
        worker(intervalSeconds="1s"), "spec.intervalSeconds", "must be of type number"
    ),
    "maxTasks negative": refused(worker(maxTasks=-1), "spec.maxTasks", "greater than or equal to 0"),
    "maxTasks absurd": refused(worker(maxTasks=10**10), "spec.maxTasks", "less than or equal to 1000000000"),
    "taskTimeoutSeconds negative": refused(
        worker(taskTimeoutSeconds=-1), "spec.taskTimeoutSeconds", "greater than or equal to 0"
    ),
    "taskTimeoutSeconds beyond a year": refused(
        worker(taskTimeoutSeconds=31_536_001), "spec.taskTimeoutSeconds", "less than or equal to 31536000"
    ),
    "env without a name": refused(env({"value": "x"}), "spec.env[0].name", MISSING),
    "env twice": refused(env({"name": "A"}, {"name": "A"}), "spec.env[1]", "Duplicate value"),
    "env unquoted": refused(
        env({"name": "DEBUG", "value": True}), "spec.env[0].value", "must be of type string"
    ),
    "resource as a fraction": refused(
        worker(resources={"limits": {"cpu": 0.5}}),
        "spec.resources.limits.cpu",
        "must be of type integer,string",
    ),
    "replicas negative": refused(worker(replicas=-1), "spec.replicas", "greater than or equal to 0"),
    "driver unknown": refused(
        worker(scaling={"driver": "KEDA"}), "spec.scaling.driver", '"Operator"', '"HPA"', '"External"'
    ),
    "behavior empty": refused(
        worker(scaling={"driver": "HPA", "behavior": {}}), "spec.scaling.behavior", "at least 1 properties"
    ),
    "behavior's window absurd": refused(
        worker(scaling={"driver": "HPA", "behavior": {"scaleUp": {"stabilizationWindowSeconds": 3601}}}),
        "spec.scaling.behavior.scaleUp.stabilizationWindowSeconds",
        "less than or equal to 3600",
    ),
    "behavior's policy unknown": refused(
        worker(scaling={"driver": "HPA", "behavior": {"scaleUp": {"selectPolicy": "Most"}}}),
        "spec.scaling.behavior.scaleUp.selectPolicy",
        '"Max"',
        '"Disabled"',
    ),
    "behavior's policy without a period": refused(
        worker(
            scaling={"driver": "HPA", "behavior": {"scaleDown": {"policies": [{"type": "Pods", "value": 1}]}}}
        ),
        "spec.scaling.behavior.scaleDown.policies[0].periodSeconds",
        MISSING,
    ),
    "min negative": refused(worker(scaling={"minReplicas": -1}), "spec.scaling.minReplicas", "equal to 0"),
    "max zero": refused(
        worker(scaling={"maxReplicas": 0}), "spec.scaling.maxReplicas", "greater than or equal to 1"
    ),
    "max absurd": refused(
        worker(scaling={"maxReplicas": 10001}), "spec.scaling.maxReplicas", "equal to 10000"
    ),
    "tasks zero": refused(
        worker(scaling={"tasksPerReplica": 0}), "spec.scaling.tasksPerReplica", "equal to 1"
    ),
    "latency negative": refused(
        worker(scaling={"targetLatencySeconds": -1}), "spec.scaling.targetLatencySeconds", "equal to 0"
    ),
    "delay negative": refused(
        worker(scaling={"scaleDownDelaySeconds": -1}), "spec.scaling.scaleDownDelaySeconds", "equal to 0"
    ),
    "delay high": refused(
        worker(scaling={"scaleDownDelaySeconds": 86401}),
        "spec.scaling.scaleDownDelaySeconds",
        "equal to 86400",
    ),
    "grace zero": refused(
        worker(terminationGracePeriodSeconds=0),
        "spec.terminationGracePeriodSeconds",
        "greater than or equal to 1",
    ),
    "orphans' policy of another world": refused(
        worker(orphans={"policy": "Retry"}), "spec.orphans.policy", '"Fail", "Requeue", "Ignore"'
    ),
    "orphans' grace negative": refused(
        worker(orphans={"graceSeconds": -1}), "spec.orphans.graceSeconds", "equal to 0"
    ),
    "requeues negative": refused(
        worker(orphans={"maxRequeues": -1}), "spec.orphans.maxRequeues", "equal to 0"
    ),
    "stuck negative": refused(worker(stuckAfterSeconds=-1), "spec.stuckAfterSeconds", "equal to 0"),
    "paused as a word": refused(worker(paused="yes"), "spec.paused", "must be of type boolean"),
    "policy of migrations unknown": refused(
        worker(migrations={"policy": "AfterRollout"}), "spec.migrations.policy", '"Never"', '"BeforeRollout"'
    ),
    "days negative": refused(
        worker(cleanup={"olderThanDays": -1}), "spec.cleanup.olderThanDays", "greater than or equal to 0"
    ),
    "days absurd": refused(
        worker(cleanup={"olderThanDays": 36501}), "spec.cleanup.olderThanDays", "less than or equal to 36500"
    ),
    "label unquoted": refused(
        worker(podTemplate={"metadata": {"labels": {"a": 1}}}),
        "spec.podTemplate.metadata.labels.a",
        "type string",
    ),
    "container without a name": refused(
        containers({"image": "x"}), "spec.podTemplate.spec.containers[0].name", MISSING
    ),
    "container twice": refused(
        containers({"name": "a"}, {"name": "a"}), "spec.podTemplate.spec.containers[1]", "Duplicate value"
    ),
}

ACCEPTED = {
    "minimal": MINIMAL,
    "name of 40": changed(MINIMAL, {"metadata": {"name": "a" * 40}}),
    "all queues": worker(queues=["*"]),
    "all queues but one": worker(queues=["*"], excludeQueues=["slow"]),
    "many queues": worker(queues=[f"queue-{n}" for n in range(64)]),
    "queue of 32, not only of ASCII": worker(queues=["ü" * 32]),
    "queue with a space within": worker(queues=["high priority"]),
    "poetry": worker(managePy=["poetry", "run", "python", "manage.py"], workingDir="/app"),
    "slots": worker(processes=4, threads=8),
    "stock": worker(runtime="Stock", managePy=["django-admin"]),
    "upgrades in stages": worker(runtimeUpgrade="Staged"),
    "prodserver": worker(prodserver={"process": "priority_worker"}, queues=["priority"], runtime="Image"),
    "fixed number": worker(scaling={"minReplicas": 3, "maxReplicas": 3}),
    "fractions of seconds": worker(intervalSeconds=0.1, scaling={"pollIntervalSeconds": 0.2}),
    "a connection": by_parts(),
    "a connection with everything": by_parts(
        host={"key": "host"}, port={"value": "6432"}, options={"sslmode": "require"}, envPrefix="DB_"
    ),
    "a connection, and the variable of a URL": changed(
        by_parts(), {"spec": {"env": [{"name": "DATABASE_URL", "value": "x"}]}}
    ),
    "operator's own": worker(database={"operatorUrlSecretRef": {"name": "shop-db-operator"}}),
    "an authority": worker(database={"sslRootCertSecretRef": {"name": "shop-db-ca"}}),
    "changes ignored": worker(database={"urlChangePolicy": "Ignore"}),
    "no URL for the pods": worker(database={"envName": ""}, env=[{"name": "DATABASE_URL", "value": "x"}]),
    "env of every kind": env(
        {"name": "A"},
        {"name": "B", "value": ""},
        {"name": "C", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b", "optional": True}}},
        {"name": "D", "valueFrom": {"configMapKeyRef": {"name": "a", "key": "b"}}},
        {"name": "E", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "F", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
    ),
    "envFrom": worker(
        envFrom=[{"secretRef": {"name": "a"}}, {"configMapRef": {"name": "a"}, "prefix": "A_"}]
    ),
    "resources": worker(
        resources={
            "requests": {"cpu": "100m", "memory": "256Mi"},
            "limits": {"cpu": 1, "memory": "256Mi", "nvidia.com/gpu": 1},
        }
    ),
    "labels and annotations": worker(
        podTemplate={
            "metadata": {"labels": {"example.org/team": "shop", "empty": ""}, "annotations": {"a": "b c"}}
        }
    ),
    "migrations": worker(migrations={"policy": "BeforeRollout"}),
    "clean-up every night": worker(cleanup={"schedule": "30 3 * * *", "olderThanDays": 0}),
    "clean-up at odd times": worker(cleanup={"schedule": "*/15 0-6,22 1,15 JAN-mar mon-FRI"}),
    "clean-up by name": worker(cleanup={"schedule": "@hourly"}),
    "clean-up off": worker(cleanup={"schedule": "", "olderThanDays": 30}),
    "clean-up of all queues with Stock": worker(
        runtime="Stock", queues=["*"], cleanup={"schedule": "@weekly"}
    ),
    "sidecar alone": containers({"name": "proxy", "image": "proxy:1", "ports": [{"containerPort": 1}]}),
    "worker container": containers({"name": "worker", "securityContext": {"runAsUser": 1000}}),
    "an autoscaler's behavior": worker(
        replicas=0,
        scaling={
            "driver": "HPA",
            "behavior": {
                "scaleUp": {
                    "stabilizationWindowSeconds": 0,
                    "selectPolicy": "Max",
                    "policies": [
                        {"type": "Pods", "value": 4, "periodSeconds": 15},
                        {"type": "Percent", "value": 100, "periodSeconds": 15},
                    ],
                },
                "scaleDown": {"selectPolicy": "Disabled"},
            },
        },
    ),
    "no pod, asked for by others": worker(replicas=0, scaling={"driver": "External"}),
    "the pod's own fields": worker(
        podTemplate={"spec": {"nodeSelector": {"a": "b"}, "restartPolicy": "Always"}}
    ),
}


@pytest.mark.parametrize("case", BY_SCHEMA.values(), ids=BY_SCHEMA)
def test_refuses(kubectl: Kubectl, crd: dict[str, Any], case: Refused) -> None:
    check(kubectl, case)


@pytest.mark.parametrize("manifest", ACCEPTED.values(), ids=ACCEPTED)
def test_accepts(kubectl: Kubectl, crd: dict[str, Any], manifest: dict[str, Any]) -> None:
    stored = kubectl(
        "create", "--dry-run=server", "--validate=strict", "-ojson", "-f", "-", manifest=manifest
    )

    # Nothing of it may be dropped in silence.
    assert changed(json.loads(stored)["spec"], manifest["spec"]) == json.loads(stored)["spec"]


DEFAULTS = {
    "imagePullPolicy": "IfNotPresent",
    "managePy": ["python", "manage.py"],
    "queues": ["default"],
    "excludeQueues": [],
    "processes": 1,
    "threads": 1,
    "runtime": "Injected",
    "runtimeUpgrade": "OnNextRollout",
    "backend": "default",
    "verbosity": 1,
    "intervalSeconds": 1,
    "maxTasks": 0,
    "taskTimeoutSeconds": 0,
    "maxMemoryPerProcess": "",
    "scaling": {
        "driver": "Operator",
        "minReplicas": 0,
        "maxReplicas": 10,
        "targetLatencySeconds": 0,
        "pollIntervalSeconds": 1,
        "scaleDownDelaySeconds": 60,
    },
    "orphans": {"policy": "Fail", "graceSeconds": 60, "maxRequeues": 3},
    "stuckAfterSeconds": 0,
    "migrations": {"policy": "Never"},
    "cleanup": {"schedule": ""},
    "terminationGracePeriodSeconds": 300,
    "paused": False,
}


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"scaling": {}},
        {"scaling": None, "queues": None, "verbosity": None},
        {"scaling": {"maxReplicas": None}},
    ],
    ids=["absent", "empty", "null", "null within"],
)
def test_fills_in_defaults(kubectl: Kubectl, crd: dict[str, Any], given: dict[str, Any]) -> None:
    stored = json.loads(kubectl("create", "--dry-run=server", "-ojson", "-f", "-", manifest=worker(**given)))

    assert stored["spec"] == {
        **DEFAULTS,
        "image": "shop:1",
        "database": {
            "urlSecretRef": {"name": "shop-db", "key": "DATABASE_URL"},
            "envName": "DATABASE_URL",
            "urlChangePolicy": "Rollout",
        },
    }


@pytest.mark.parametrize(
    ("manifest", "field"),
    [
        (worker(queue=["emails"]), "spec.queue"),
        (worker(scaling={"maxReplica": 3}), "spec.scaling.maxReplica"),
        (worker(database={"urlSecretRef": {"namespace": "other"}}), "spec.database.urlSecretRef.namespace"),
        (worker(podTemplate={"metadata": {"name": "x"}}), "spec.podTemplate.metadata.name"),
        (worker(process=4), "spec.process"),
        (worker(podTemplate={"spec": {"containers": {"worker": {}}}}), "spec.podTemplate.spec.containers"),
    ],
)
@pytest.mark.parametrize("how", [(), ("--server-side",)], ids=["client", "server-side"])
def test_names_the_unknown_field(
    kubectl: Kubectl, crd: dict[str, Any], manifest: dict[str, Any], field: str, how: tuple[str, ...]
) -> None:
    apply = ("apply", "--dry-run=server", "--validate=strict", *how, "-f", "-")

    assert field in kubectl.refused(*apply, manifest=manifest)
