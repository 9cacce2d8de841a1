"""Each rule of the CRD on a real API server, with its message."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.integration.workers import (
    ABSENT,
    CONNECTION,
    MINIMAL,
    Refused,
    by_parts,
    changed,
    check,
    env,
    labels,
    refused,
    worker,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Kubectl

# The first part of each message is how the rule's fixed message begins; what follows may hold the value.
BY_RULES = {
    "name of 200 characters": refused(
        changed(MINIMAL, {"metadata": {"name": "a" * 200}}),
        "",
        "metadata.name must have at most 40 characters, not 200",
        "choose a shorter name",
    ),
    "name too long": refused(
        changed(MINIMAL, {"metadata": {"name": "a" * 41}}),
        "",
        "metadata.name must have at most 40 characters",
        "not 41",
        "choose a shorter name",
    ),
    "exclude without all": refused(
        worker(queues=["default"], excludeQueues=["slow"]),
        "spec.excludeQueues",
        'excludeQueues works only with queues: ["*"]',
        'set queues to ["*"], or remove excludeQueues',
    ),
    "exclude with the default queue": refused(
        worker(excludeQueues=["slow"]), "spec.excludeQueues", 'excludeQueues works only with queues: ["*"]'
    ),
    "min above max": refused(
        worker(scaling={"minReplicas": 5, "maxReplicas": 3}),
        "spec.scaling.minReplicas",
        "scaling.minReplicas must not be greater than scaling.maxReplicas",
        "but 5 is greater than 3: lower minReplicas or raise maxReplicas",
    ),
    "min above the default max": refused(
        worker(scaling={"minReplicas": 11}),
        "spec.scaling.minReplicas",
        "scaling.minReplicas must not be greater than scaling.maxReplicas",
        "but 11 is greater than 10",
    ),
    "replicas with the Operator driver": refused(
        worker(replicas=3),
        "spec.replicas",
        "replicas cannot be set while scaling.driver is Operator",
        "change scaling.minReplicas and scaling.maxReplicas (both to 3 for a fixed number)",
    ),
    "behavior with the Operator driver": refused(
        worker(scaling={"behavior": {"scaleUp": {"selectPolicy": "Min"}}}),
        "spec.scaling.behavior",
        "scaling.behavior is for the HorizontalPodAutoscaler of scaling.driver HPA",
        "set the driver to HPA, or remove behavior",
    ),
    "behavior with the External driver": refused(
        worker(scaling={"driver": "External", "behavior": {"scaleUp": {"selectPolicy": "Min"}}}),
        "spec.scaling.behavior",
        "scaling.behavior is for the HorizontalPodAutoscaler of scaling.driver HPA",
    ),
    "latency with the HPA driver": refused(
        worker(scaling={"driver": "HPA", "targetLatencySeconds": 30}),
        "spec.scaling.targetLatencySeconds",
        "scaling.targetLatencySeconds works only with scaling.driver Operator",
        "set the driver to Operator, or remove targetLatencySeconds",
    ),
    "latency with the External driver": refused(
        worker(scaling={"driver": "External", "targetLatencySeconds": 30}),
        "spec.scaling.targetLatencySeconds",
        "scaling.targetLatencySeconds works only with scaling.driver Operator",
    ),
    "URL in env": refused(
        env({"name": "DATABASE_URL", "value": "x"}),
        "spec.env",
        "env must not set the variable that database.envName names",
        "DATABASE_URL, because the pods get it from database.urlSecretRef",
        'remove it from env, or set database.envName to ""',
    ),
    "URL's own name in env": refused(
        changed(env({"name": "DB", "value": "x"}), {"spec": {"database": {"envName": "DB"}}}),
        "spec.env",
        "env must not set the variable that database.envName names",
        "DB, because",
    ),
    "image empty": refused(worker(image=""), "spec.image", "image must be an image's name without spaces"),
    "image with a space": refused(worker(image="shop: 1"), "spec.image", "image must be an image's name"),
    "managePy empty": refused(worker(managePy=[]), "spec.managePy", "managePy must have at least one word"),
    "managePy with an empty word": refused(
        worker(managePy=["python", ""]),
        "spec.managePy",
        "managePy must have at least one word and no empty one",
    ),
    "managePy in one word": refused(
        worker(managePy=["python manage.py"]),
        "spec.managePy",
        "managePy must have each word as an item of its own",
        "write [python, manage.py]",
    ),
    "managePy not a script": refused(
        worker(managePy=["django-admin"]),
        "spec.managePy",
        "managePy must be an interpreter and a script for runtime Injected",
        "set runtime to Image or Stock",
    ),
    "processes with Stock": refused(
        worker(runtime="Stock", processes=2), "spec.runtime", "runtime Stock runs one task at a time"
    ),
    "threads with Stock": refused(
        worker(runtime="Stock", threads=2), "spec.runtime", "runtime Stock runs one task at a time"
    ),
    "runtimeUpgrade with Image": refused(
        worker(runtime="Image", runtimeUpgrade="Staged"),
        "spec.runtimeUpgrade",
        "runtimeUpgrade is about the db_worker that runtime Injected adds",
        "remove runtimeUpgrade, or remove runtime for Injected",
    ),
    "setup with Stock": refused(
        worker(runtime="Stock", database={"setup": "Managed"}, migrations={"policy": "BeforeRollout"}),
        "spec.database.setup",
        "database.setup Managed runs db_worker_setup, a command that runtime Stock does not have",
        "remove database.setup, or remove runtime for Injected",
    ),
    "setup without the Job": refused(
        worker(database={"setup": "Managed"}),
        "spec.database.setup",
        "database.setup Managed is done by the Job of migrations.policy BeforeRollout",
        "set migrations.policy to BeforeRollout, or remove database.setup",
    ),
    "maxTasks with Stock": refused(
        worker(runtime="Stock", maxTasks=100),
        "spec.maxTasks",
        "maxTasks ends the container with runtime Stock",
        "remove maxTasks, or remove runtime for Injected",
    ),
    "taskTimeoutSeconds with Stock": refused(
        worker(runtime="Stock", taskTimeoutSeconds=60),
        "spec.taskTimeoutSeconds",
        "taskTimeoutSeconds works only with a worker that can replace its processes",
        "remove taskTimeoutSeconds, or remove runtime for Injected",
    ),
    "prodserver with a time-out": refused(
        worker(prodserver={"process": "worker"}, taskTimeoutSeconds=60),
        "spec.prodserver",
        "prodserver takes processes, threads, maxTasks, taskTimeoutSeconds,",
    ),
    "maxMemoryPerProcess with Stock": refused(
        worker(runtime="Stock", maxMemoryPerProcess="512Mi"),
        "spec.maxMemoryPerProcess",
        "maxMemoryPerProcess works only with a worker that can replace its processes",
        "remove maxMemoryPerProcess, or remove runtime for Injected",
    ),
    "maxMemoryPerProcess as large as the container's": refused(
        worker(maxMemoryPerProcess="1Gi", resources={"limits": {"memory": "1024Mi"}}),
        "spec.maxMemoryPerProcess",
        "maxMemoryPerProcess must be less than resources.limits.memory",
        "lower maxMemoryPerProcess",
    ),
    "maxMemoryPerProcess in words": refused(
        worker(maxMemoryPerProcess="half"),
        "spec.maxMemoryPerProcess",
        "maxMemoryPerProcess must be a quantity of memory",
    ),
    "maxMemoryPerProcess of nothing": refused(
        worker(maxMemoryPerProcess="0Mi"),
        "spec.maxMemoryPerProcess",
        "maxMemoryPerProcess must be a quantity of memory",
    ),
    "prodserver with a limit of memory": refused(
        worker(prodserver={"process": "worker"}, maxMemoryPerProcess="512Mi"),
        "spec.prodserver",
        "prodserver takes processes, threads, maxTasks, taskTimeoutSeconds,",
    ),
    "prodserver with processes": refused(
        worker(prodserver={"process": "worker"}, processes=2),
        "spec.prodserver",
        "prodserver takes processes, threads, maxTasks, taskTimeoutSeconds, maxMemoryPerProcess,",
    ),
    "prodserver with Stock": refused(
        worker(prodserver={"process": "worker"}, runtime="Stock"),
        "spec.prodserver",
        "prodserver passes options that runtime Stock does not know",
    ),
    "prodserver with an option": refused(
        worker(prodserver={"process": "--all"}),
        "spec.prodserver.process",
        "prodserver.process must be the name of an entry",
    ),
    "workingDir relative": refused(
        worker(workingDir="app"),
        "spec.workingDir",
        "workingDir must be an absolute path",
        "begin it with a slash",
    ),
    "workingDir empty": refused(
        worker(workingDir=""), "spec.workingDir", "workingDir must be an absolute path"
    ),
    "no queue": refused(
        worker(queues=[]), "spec.queues", "queues must have at least one queue", 'write ["*"]'
    ),
    "all queues and more": refused(
        worker(queues=["*", "emails"]),
        "spec.queues",
        'queues must have "*" alone',
        'write ["*"], or remove "*"',
    ),
    "queue twice": refused(
        worker(queues=["a", "b", "a"]), "spec.queues", "queues must have each queue once", 'the repeated "a"'
    ),
    "queue empty": refused(
        worker(queues=["a", ""]), "spec.queues[1]", "queues must not have an empty name", 'or write "default"'
    ),
    "queues in one": refused(
        worker(queues=["a,b"]),
        "spec.queues[0]",
        "queues must not have a comma within a name",
        'but "a,b" has one',
    ),
    "queue after a space": refused(
        worker(queues=[" a"]),
        "spec.queues[0]",
        "queues must not have spaces around a name",
        'but " a" has some',
    ),
    "queue with a newline": refused(
        worker(queues=["a\n"]), "spec.queues[0]", "queues must not have spaces around a name"
    ),
    "queue too long": refused(
        worker(queues=["q" * 33]),
        "spec.queues[0]",
        "queues must have names of at most 32 characters",
        f'no task can be in "{"q" * 33}" (33 characters)',
    ),
    "exclude all": refused(
        worker(queues=["*"], excludeQueues=["*"]), "spec.excludeQueues", 'excludeQueues must not have "*"'
    ),
    "exclude twice": refused(
        worker(queues=["*"], excludeQueues=["a", "a"]),
        "spec.excludeQueues",
        "excludeQueues must have each queue once",
        'the repeated "a"',
    ),
    "exclude empty": refused(
        worker(queues=["*"], excludeQueues=[""]),
        "spec.excludeQueues[0]",
        "excludeQueues must not have an empty name",
    ),
    "exclude two in one": refused(
        worker(queues=["*"], excludeQueues=["a,b"]),
        "spec.excludeQueues[0]",
        "excludeQueues must not have a comma within a name",
        'but "a,b" has one',
    ),
    "exclude before a space": refused(
        worker(queues=["*"], excludeQueues=["a "]),
        "spec.excludeQueues[0]",
        "excludeQueues must not have spaces around a name",
        'but "a " has some',
    ),
    "exclude too long": refused(
        worker(queues=["*"], excludeQueues=["q" * 40]),
        "spec.excludeQueues[0]",
        "excludeQueues must have names of at most 32 characters",
        "(40 characters)",
    ),
    "backend empty": refused(
        worker(backend=""), "spec.backend", "backend must be an alias in your settings' TASKS"
    ),
    "backend too long": refused(
        worker(backend="b" * 33), "spec.backend", "backend must be an alias", "1 to 32"
    ),
    "env given twice over": refused(
        env({"name": "A", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}),
        "spec.env[0]",
        "env must give a variable either value or valueFrom, not both",
        "remove one from A",
    ),
    "env POD_NAME": refused(
        env({"name": "POD_NAME", "value": "x"}),
        "spec.env[0].name",
        "env must not set POD_NAME, DB_WORKER_ID or DB_WORKER_HEALTH_PORT, which the operator",
    ),
    "env name with a digit": refused(
        env({"name": "1A"}), "spec.env[0].name", "env must have names of letters", 'not "1A"'
    ),
    "env name empty": refused(
        env({"name": ""}), "spec.env[0].name", "env must have names of letters", 'not ""'
    ),
    "env from nowhere": refused(
        env({"name": "A", "valueFrom": {}}), "spec.env[0].valueFrom", "valueFrom must have exactly one of"
    ),
    "env from two": refused(
        env(
            {
                "name": "A",
                "valueFrom": {
                    "secretKeyRef": {"name": "a", "key": "b"},
                    "configMapKeyRef": {"name": "a", "key": "b"},
                },
            }
        ),
        "spec.env[0].valueFrom",
        "valueFrom must have exactly one of",
    ),
    "envFrom nothing": refused(
        worker(envFrom=[{"prefix": "A_"}]),
        "spec.envFrom[0]",
        "envFrom must have exactly one of configMapRef and",
    ),
    "envFrom two": refused(
        worker(envFrom=[{"secretRef": {"name": "a"}, "configMapRef": {"name": "a"}}]),
        "spec.envFrom[0]",
        "envFrom must have exactly one of configMapRef and secretRef",
    ),
    "request that is no quantity": refused(
        worker(resources={"requests": {"memory": "1GiB"}}),
        "spec.resources.requests[memory]",
        "resources.requests must have quantities",
        "256Mi or 1Gi",
    ),
    "request below zero": refused(
        worker(resources={"requests": {"cpu": "-1"}}),
        "spec.resources.requests[cpu]",
        "resources.requests must have quantities that are not negative",
    ),
    "limit that is no quantity": refused(
        worker(resources={"limits": {"cpu": "lots"}}),
        "spec.resources.limits[cpu]",
        "resources.limits must have",
    ),
    "limit below zero": refused(
        worker(resources={"limits": {"cpu": -1}}), "spec.resources.limits[cpu]", "resources.limits must have"
    ),
    "request above limit": refused(
        worker(resources={"requests": {"cpu": 1}, "limits": {"cpu": "900m"}}),
        "spec.resources.requests",
        "resources.requests must not exceed resources.limits",
    ),
    "secret's name empty": refused(
        worker(database={"urlSecretRef": {"name": ""}}),
        "spec.database.urlSecretRef.name",
        "urlSecretRef.name must be the name of a Secret in this namespace",
    ),
    "secret's name impossible": refused(
        worker(database={"urlSecretRef": {"name": "shop/shop-db"}}),
        "spec.database.urlSecretRef.name",
        "urlSecretRef.name must be the name of a Secret in this namespace",
    ),
    "secret's key empty": refused(
        worker(database={"urlSecretRef": {"key": ""}}),
        "spec.database.urlSecretRef.key",
        "urlSecretRef.key must be a key of the Secret",
    ),
    "no database told": refused(
        worker(database={"urlSecretRef": ABSENT}),
        "spec.database",
        "database must have exactly one of urlSecretRef",
    ),
    "database told twice": refused(
        worker(database={"connection": CONNECTION}), "spec.database", "database must have exactly one of"
    ),
    "connection's secret's name impossible": refused(
        by_parts(secretRef={"name": "Shop_DB"}),
        "spec.database.connection.secretRef.name",
        "connection.secretRef.name must be the name of a Secret in this namespace",
    ),
    **{
        f"{part} by value and by key": refused(
            by_parts(**{part: {"value": "a", "key": "b"}}),
            f"spec.database.connection.{part}",
            f"connection.{part} must have exactly one of value and key",
        )
        for part in ("host", "port", "name", "user")
    },
    "host by nothing": refused(
        by_parts(host={}), "spec.database.connection.host", "connection.host must have exactly one of"
    ),
    **{
        f"{part}'s key impossible": refused(
            by_parts(**{part: {"key": "a b"}}),
            f"spec.database.connection.{part}.key",
            f"connection.{part}.key must be a key of the Secret",
        )
        for part in ("host", "port", "name", "user", "password")
    },
    "envPrefix with a dash": refused(
        by_parts(envPrefix="DB-"),
        "spec.database.connection.envPrefix",
        "connection.envPrefix must be the beginning of an environment variable's name",
    ),
    "envPrefix POD_": refused(
        by_parts(envPrefix="POD_"),
        "spec.database.connection.envPrefix",
        "connection.envPrefix must be",
        "not POD_",
    ),
    "operator's URL's name empty": refused(
        worker(database={"operatorUrlSecretRef": {"name": ""}}),
        "spec.database.operatorUrlSecretRef.name",
        "operatorUrlSecretRef.name must be the name of a Secret in this namespace",
    ),
    "operator's URL's key a path": refused(
        worker(database={"operatorUrlSecretRef": {"name": "shop-db-operator", "key": "a/b"}}),
        "spec.database.operatorUrlSecretRef.key",
        "operatorUrlSecretRef.key must be a key of the Secret",
    ),
    "CA's name empty": refused(
        worker(database={"sslRootCertSecretRef": {"name": ""}}),
        "spec.database.sslRootCertSecretRef.name",
        "sslRootCertSecretRef.name must be the name of a Secret in this namespace",
    ),
    "CA's key a path": refused(
        worker(database={"sslRootCertSecretRef": {"name": "shop-db-ca", "key": "/etc/ca.crt"}}),
        "spec.database.sslRootCertSecretRef.key",
        "sslRootCertSecretRef.key must be a key of the Secret",
    ),
    "envName with a space": refused(
        worker(database={"envName": "DATABASE URL"}),
        "spec.database.envName",
        "database.envName must be an environment variable's name",
    ),
    "envName POD_NAME": refused(
        worker(database={"envName": "POD_NAME"}),
        "spec.database.envName",
        "database.envName must be",
        "not POD_NAME",
    ),
    "interval zero": refused(
        worker(intervalSeconds=0), "spec.intervalSeconds", "intervalSeconds must be from 0.1 to"
    ),
    "interval low": refused(
        worker(intervalSeconds=0.09), "spec.intervalSeconds", "intervalSeconds must be from 0.1"
    ),
    "interval high": refused(
        worker(intervalSeconds=3601), "spec.intervalSeconds", "intervalSeconds must be", "3600"
    ),
    "poll zero": refused(
        worker(scaling={"pollIntervalSeconds": 0}),
        "spec.scaling.pollIntervalSeconds",
        "scaling.pollIntervalSeconds must be from 0.2 to 300 seconds",
    ),
    "poll low": refused(
        worker(scaling={"pollIntervalSeconds": 0.1}),
        "spec.scaling.pollIntervalSeconds",
        "scaling.pollIntervalSeconds must be from 0.2 to 300 seconds",
    ),
    "poll high": refused(
        worker(scaling={"pollIntervalSeconds": 300.5}),
        "spec.scaling.pollIntervalSeconds",
        "scaling.pollIntervalSeconds must be from 0.2 to 300 seconds",
    ),
    "schedule in words": refused(
        worker(cleanup={"schedule": "every night"}),
        "spec.cleanup.schedule",
        "cleanup.schedule must be a cron expression of five fields",
        'such as "30 3 * * *", or one of @hourly',
    ),
    "schedule of four fields": refused(
        worker(cleanup={"schedule": "30 3 * *"}),
        "spec.cleanup.schedule",
        "cleanup.schedule must be a cron expression",
    ),
    "schedule at a minute that does not exist": refused(
        worker(cleanup={"schedule": "60 3 * * *"}),
        "spec.cleanup.schedule",
        "cleanup.schedule must be a cron expression",
    ),
    "schedule with a time zone": refused(
        worker(cleanup={"schedule": "TZ=UTC 0 3 * * *"}),
        "spec.cleanup.schedule",
        "cleanup.schedule must be a cron expression",
    ),
    "clean-up of all queues but one with Stock": refused(
        worker(runtime="Stock", queues=["*"], excludeQueues=["slow"], cleanup={"schedule": "@daily"}),
        "spec.cleanup.schedule",
        "cleanup cannot leave out queues with runtime Stock",
        "remove runtime for Injected",
    ),
    "selector label": refused(
        labels({"djangotasks.dev/worker": "other"}),
        "spec.podTemplate.metadata.labels",
        "podTemplate.metadata.labels must not have djangotasks.dev/worker",
    ),
    "manager label": refused(
        labels({"app.kubernetes.io/managed-by": "Helm"}),
        "spec.podTemplate.metadata.labels",
        "podTemplate.metadata.labels must not have djangotasks.dev/worker",
    ),
    "label value with a space": refused(
        labels({"team": "the shop"}),
        "spec.podTemplate.metadata.labels",
        "podTemplate.metadata.labels must have keys and",
    ),
    "label key with a space": refused(
        labels({"my team": "shop"}),
        "spec.podTemplate.metadata.labels",
        "podTemplate.metadata.labels must have",
    ),
    "label value too long": refused(
        labels({"team": "a" * 64}),
        "spec.podTemplate.metadata.labels",
        "podTemplate.metadata.labels must have",
        "63",
    ),
    "annotation key with a space": refused(
        worker(podTemplate={"metadata": {"annotations": {"my team": "shop"}}}),
        "spec.podTemplate.metadata.annotations",
        "podTemplate.metadata.annotations must have keys",
    ),
    "pod that ends": refused(
        worker(podTemplate={"spec": {"restartPolicy": "Never"}}),
        "spec.podTemplate.spec.restartPolicy",
        "podTemplate.spec.restartPolicy must be Always",
        "remove it",
    ),
}


@pytest.mark.parametrize("case", BY_RULES.values(), ids=BY_RULES)
def test_refuses(kubectl: Kubectl, crd: dict[str, Any], case: Refused) -> None:
    check(kubectl, case)


def rules(schema: dict[str, Any]) -> Iterator[str]:
    yield from (rule["message"] for rule in schema.get("x-kubernetes-validations", []))
    for inner in [
        *schema.get("properties", {}).values(),
        schema.get("items"),
        schema.get("additionalProperties"),
    ]:
        yield from rules(inner) if inner else ()


def test_every_rule_is_tried(crd: dict[str, Any]) -> None:
    tried = tuple(case.message[0] for case in BY_RULES.values())
    messages = list(rules(crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]))

    assert len(messages) > 30
    assert [message for message in messages if not message.startswith(tried)] == []
