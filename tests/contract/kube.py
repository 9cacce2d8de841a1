"""What the operator expects of every API server: the same tests for the fake and a real one."""

from __future__ import annotations

import asyncio
import copy
from typing import TYPE_CHECKING, Any, Protocol

import pytest
from kubernetes.aio.client.exceptions import ApiException
from tests.waiting import PATIENCE_S

from django_task_operator.cluster.api_errors import describe
from django_task_operator.cluster.kube import DEPLOYMENTS, PODS, WORKERS, Kind
from django_task_operator.spec import Key

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from django_task_operator.cluster.kube import Kube

type Manifest = dict[str, Any]
type Event = tuple[str, Manifest]

NAME = "emails"
# What the operator asks its watches for.
SELECTOR = "app.kubernetes.io/managed-by=django-task-operator,djangotasks.dev/worker"
LABELS = {"app.kubernetes.io/managed-by": "django-task-operator", "djangotasks.dev/worker": NAME}
# No object has it.
NOBODY = "00000000-0000-0000-0000-000000000000"


class Cluster(Protocol):
    """An API server, with an empty namespace that nobody else uses."""

    namespace: str
    # The operator's view of it.
    kube: Kube

    # What others do, by the plural of a kind.

    async def create(self, kind: Kind, manifest: Manifest) -> Manifest: ...

    async def edit(self, kind: Kind, name: str, change: Manifest) -> Manifest:
        """Merge a change into an object; null removes a field."""

    async def delete(self, kind: Kind, name: str) -> None: ...

    async def without_rights(self) -> Kube:
        """The API server as a user without any rights sees it."""


async def refused(request: Awaitable[object]) -> ApiException:
    """The error that a request raises."""
    with pytest.raises(ApiException) as raised:
        await request
    return raised.value


class KubeContract:
    """Subclasses define the fixture ``cluster``."""

    def key(self, cluster: Cluster, name: str = NAME) -> Key:
        return Key(namespace=cluster.namespace, name=name)

    def deployment(self, cluster: Cluster, **spec: Any) -> Manifest:
        """A Deployment with no replicas, so that its controller only changes its status."""
        container = {"name": "worker", "image": "shop:1", "env": [{"name": "A", "value": "1"}]}
        return {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": NAME, "namespace": cluster.namespace, "labels": {**LABELS}},
            "spec": {
                "replicas": 0,
                "selector": {"matchLabels": LABELS},
                "template": {"metadata": {"labels": LABELS}, "spec": {"containers": [container]}},
                **spec,
            },
        }

    def pod(self, cluster: Cluster, name: str, **labels: str) -> Manifest:
        """A pod that is never scheduled."""
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": cluster.namespace, "labels": labels},
            "spec": {
                "schedulingGates": [{"name": "example.org/never"}],
                "containers": [{"name": "worker", "image": "shop:1"}],
            },
        }

    async def stored(self, cluster: Cluster) -> Manifest:
        found = await cluster.kube.get_object(DEPLOYMENTS, self.key(cluster))
        assert found
        return found

    # Applying

    async def test_an_apply_creates_what_is_not_there(self, cluster: Cluster) -> None:
        assert await cluster.kube.get_object(DEPLOYMENTS, self.key(cluster)) is None

        made = await cluster.kube.apply_object(DEPLOYMENTS, self.deployment(cluster), uid=None)

        assert made["metadata"]["uid"]
        assert made["metadata"]["resourceVersion"]
        assert made["metadata"]["generation"] == 1
        assert made["spec"]["replicas"] == 0
        assert (await self.stored(cluster))["metadata"]["uid"] == made["metadata"]["uid"]

    async def test_a_change_of_the_spec_is_another_generation(self, cluster: Cluster) -> None:
        made = await cluster.kube.apply_object(DEPLOYMENTS, self.deployment(cluster), uid=None)
        uid = made["metadata"]["uid"]
        changed = await cluster.kube.apply_object(
            DEPLOYMENTS, self.deployment(cluster, minReadySeconds=7), uid=uid
        )
        assert (changed["metadata"]["generation"], changed["spec"]["minReadySeconds"]) == (2, 7)

        labelled = self.deployment(cluster, minReadySeconds=7)
        labelled["metadata"]["labels"]["team"] = "shop"
        changed = await cluster.kube.apply_object(DEPLOYMENTS, labelled, uid=uid)
        assert (changed["metadata"]["generation"], changed["metadata"]["labels"]["team"]) == (2, "shop")

    async def test_what_is_not_applied_any_more_is_removed(self, cluster: Cluster) -> None:
        before = self.deployment(cluster, minReadySeconds=7)
        before["metadata"]["labels"]["team"] = "shop"
        made = await cluster.kube.apply_object(DEPLOYMENTS, before, uid=None)
        after = await cluster.kube.apply_object(
            DEPLOYMENTS, self.deployment(cluster), uid=made["metadata"]["uid"]
        )
        assert "team" not in after["metadata"]["labels"]
        assert after["spec"].get("minReadySeconds", 0) == 0

    async def test_fields_of_others_stay(self, cluster: Cluster) -> None:
        made = await cluster.kube.apply_object(DEPLOYMENTS, self.deployment(cluster), uid=None)
        await cluster.edit(
            DEPLOYMENTS, NAME, {"metadata": {"labels": {"team": "shop"}}, "spec": {"minReadySeconds": 7}}
        )
        after = await cluster.kube.apply_object(
            DEPLOYMENTS, self.deployment(cluster), uid=made["metadata"]["uid"]
        )
        assert after["metadata"]["labels"]["team"] == "shop"
        assert after["spec"]["minReadySeconds"] == 7

    async def test_entries_of_others_in_a_list_with_names_stay(self, cluster: Cluster) -> None:
        made = await cluster.kube.apply_object(DEPLOYMENTS, self.deployment(cluster), uid=None)
        containers = copy.deepcopy(self.deployment(cluster)["spec"]["template"]["spec"]["containers"])
        containers[0]["env"].append({"name": "B", "value": "theirs"})
        containers.append({"name": "sidecar", "image": "mesh:1"})
        await cluster.edit(DEPLOYMENTS, NAME, {"spec": {"template": {"spec": {"containers": containers}}}})
        wanted = self.deployment(cluster)
        wanted["spec"]["template"]["spec"]["containers"][0]["env"] = [{"name": "C", "value": "ours"}]
        after = await cluster.kube.apply_object(DEPLOYMENTS, wanted, uid=made["metadata"]["uid"])

        ours, theirs = after["spec"]["template"]["spec"]["containers"]
        assert (ours["name"], theirs["name"], theirs["image"]) == ("worker", "sidecar", "mesh:1")
        assert {each["name"]: each["value"] for each in ours["env"]} == {"B": "theirs", "C": "ours"}

    async def test_an_apply_with_the_uid_takes_fields_of_others(self, cluster: Cluster) -> None:
        made = await cluster.kube.apply_object(DEPLOYMENTS, self.deployment(cluster), uid=None)
        await cluster.edit(DEPLOYMENTS, NAME, {"spec": {"replicas": 0, "minReadySeconds": 7}})
        after = await cluster.kube.apply_object(
            DEPLOYMENTS, self.deployment(cluster, minReadySeconds=8), uid=made["metadata"]["uid"]
        )
        assert after["spec"]["minReadySeconds"] == 8

    async def test_without_the_uid_a_field_of_somebody_else_is_a_conflict(self, cluster: Cluster) -> None:
        await cluster.create(DEPLOYMENTS, self.deployment(cluster, minReadySeconds=7))
        error = await refused(
            cluster.kube.apply_object(DEPLOYMENTS, self.deployment(cluster, minReadySeconds=8), uid=None)
        )
        assert error.status == 409
        assert "conflict" in describe(error)
        assert (await self.stored(cluster))["spec"]["minReadySeconds"] == 7

    async def test_a_label_of_somebody_else_is_a_conflict_too(self, cluster: Cluster) -> None:
        theirs = self.deployment(cluster)
        theirs["metadata"]["labels"]["team"] = "theirs"
        await cluster.create(DEPLOYMENTS, theirs)
        ours = self.deployment(cluster)
        ours["metadata"]["labels"]["team"] = "ours"
        assert (await refused(cluster.kube.apply_object(DEPLOYMENTS, ours, uid=None))).status == 409

    async def test_what_both_say_or_only_one_of_them_is_no_conflict(self, cluster: Cluster) -> None:
        theirs = self.deployment(cluster, minReadySeconds=7)
        theirs["metadata"]["labels"]["theirs"] = "1"
        await cluster.create(DEPLOYMENTS, theirs)
        ours = self.deployment(cluster, paused=True)
        ours["metadata"]["labels"]["ours"] = "2"
        made = await cluster.kube.apply_object(DEPLOYMENTS, ours, uid=None)

        assert (made["spec"]["minReadySeconds"], made["spec"]["paused"]) == (7, True)
        assert made["metadata"]["labels"] == {**LABELS, "theirs": "1", "ours": "2"}

    async def test_another_object_of_the_name_is_not_changed(self, cluster: Cluster) -> None:
        await cluster.kube.apply_object(DEPLOYMENTS, self.deployment(cluster), uid=None)
        wanted = self.deployment(cluster, minReadySeconds=7)
        assert (await refused(cluster.kube.apply_object(DEPLOYMENTS, wanted, uid=NOBODY))).status == 409
        assert (await self.stored(cluster))["metadata"]["generation"] == 1

    async def test_an_object_that_is_gone_is_not_created_by_its_uid(self, cluster: Cluster) -> None:
        wanted = self.deployment(cluster)
        assert (await refused(cluster.kube.apply_object(DEPLOYMENTS, wanted, uid=NOBODY))).status == 409
        assert await cluster.kube.get_object(DEPLOYMENTS, self.key(cluster)) is None

    @pytest.mark.parametrize(
        ("container", "status", "words"),
        [
            ({"image": None}, 422, "containers[0].image: Required value"),
            ({"volumeMounts": [{"name": "none", "mountPath": "/x"}]}, 422, 'Not found: "none"'),
            ({"unknownField": 1}, 500, "field not declared in schema"),
        ],
    )
    async def test_a_pod_template_that_cannot_be(
        self, cluster: Cluster, container: Manifest, status: int, words: str
    ) -> None:
        wanted = self.deployment(cluster)
        wanted["spec"]["template"]["spec"]["containers"][0].update(container)
        error = await refused(cluster.kube.apply_object(DEPLOYMENTS, wanted, uid=None))
        assert error.status == status
        assert words in describe(error)

    # Scaling, deleting

    async def test_a_scaling_changes_the_replicas_alone(self, cluster: Cluster) -> None:
        made = await cluster.kube.apply_object(
            DEPLOYMENTS, self.deployment(cluster, paused=True, replicas=1), uid=None
        )
        scaled = await cluster.kube.scale_deployment(self.key(cluster), 0)
        assert scaled["metadata"]["generation"] == 2
        assert scaled["spec"] == {**made["spec"], "replicas": 0}
        error = await refused(cluster.kube.scale_deployment(self.key(cluster, "nobody"), 0))
        assert error.status == 404

    async def test_a_pod_spec_is_replaced_as_a_whole(self, cluster: Cluster) -> None:
        made = await cluster.kube.apply_object(DEPLOYMENTS, self.deployment(cluster), uid=None)
        containers = [*made["spec"]["template"]["spec"]["containers"], {"name": "sidecar", "image": "mesh:1"}]
        await cluster.edit(DEPLOYMENTS, NAME, {"spec": {"template": {"spec": {"containers": containers}}}})
        wanted = copy.deepcopy(self.deployment(cluster)["spec"]["template"]["spec"])
        replace = cluster.kube.replace_pod_spec
        refusals = [
            (await refused(replace(key, NOBODY, wanted))).status
            for key in (self.key(cluster), self.key(cluster, "nobody"))
        ]
        assert refusals == [422, 404]
        replaced = await replace(self.key(cluster), made["metadata"]["uid"], wanted)
        assert [each["name"] for each in replaced["spec"]["template"]["spec"]["containers"]] == ["worker"]
        assert replaced["metadata"]["generation"] == 3

    async def test_only_the_object_of_the_uid_is_deleted(self, cluster: Cluster) -> None:
        made = await cluster.kube.apply_object(DEPLOYMENTS, self.deployment(cluster), uid=None)
        await cluster.kube.delete_object(DEPLOYMENTS, self.key(cluster), NOBODY)
        assert await self.stored(cluster)
        await cluster.kube.delete_object(DEPLOYMENTS, self.key(cluster), made["metadata"]["uid"])
        assert await cluster.kube.get_object(DEPLOYMENTS, self.key(cluster)) is None
        await cluster.kube.delete_object(DEPLOYMENTS, self.key(cluster), made["metadata"]["uid"])

    # Pods, Secrets, events

    async def test_only_the_pod_of_the_uid_is_annotated(self, cluster: Cluster) -> None:
        made = await cluster.create(PODS, self.pod(cluster, "a", **LABELS))
        uid, annotate = made["metadata"]["uid"], cluster.kube.annotate_pod
        marked = await annotate(cluster.namespace, "a", uid, {"example.org/x": "1", "example.org/y": "2"})
        assert marked["metadata"]["annotations"] == {"example.org/x": "1", "example.org/y": "2"}
        marked = await annotate(cluster.namespace, "a", uid, {"example.org/x": None})
        assert marked["metadata"]["annotations"] == {"example.org/y": "2"}
        for name, of, status in (("a", NOBODY, 409), ("b", uid, 404)):
            error = await refused(annotate(cluster.namespace, name, of, {"example.org/x": "3"}))
            assert error.status == status, name

    async def test_pods_are_listed_by_their_labels(self, cluster: Cluster) -> None:
        await cluster.create(PODS, self.pod(cluster, "a", **LABELS))
        await cluster.create(PODS, self.pod(cluster, "b", **{**LABELS, "djangotasks.dev/worker": "mails"}))
        await cluster.create(PODS, self.pod(cluster, "c"))
        selector = ",".join(f"{name}={value}" for name, value in LABELS.items())
        listed = await cluster.kube.list_pods(cluster.namespace, selector)
        assert [pod["metadata"]["name"] for pod in listed] == ["a"]

    async def test_a_secret_is_created_once(self, cluster: Cluster) -> None:
        key = self.key(cluster, "hash-key")
        assert (await refused(cluster.kube.get_secret(key.namespace, key.name))).status == 404
        await cluster.kube.create_secret(key, {"key": "Zmlyc3Q="})
        assert (await refused(cluster.kube.create_secret(key, {"key": "c2Vjb25k"}))).status == 409
        assert (await cluster.kube.get_secret(key.namespace, key.name))["data"] == {"key": "Zmlyc3Q="}

    async def test_an_event_may_say_no_more_than_a_kilobyte(self, cluster: Cluster) -> None:
        await cluster.kube.create_event(cluster.namespace, self.event(cluster, "x" * 1024))
        for note in ("x" * 1025, "ß" * 513):
            error = await refused(cluster.kube.create_event(cluster.namespace, self.event(cluster, note)))
            assert error.status == 422

    async def test_events_are_listed_by_their_reason_and_the_object_that_they_are_about(
        self, cluster: Cluster
    ) -> None:
        for note, reason, uid in (
            ("a", "Tried", "u-1"),
            ("bb", "Tried", "u-2"),
            ("ccc", "Done", "u-1"),
            ("dddd", "Tried", "u-1"),
        ):
            event = self.event(cluster, note, reason=reason, uid=uid)
            await cluster.kube.create_event(cluster.namespace, event)

        async def notes(reason: str, about: str = "") -> set[str]:
            listed = await cluster.kube.list_events(cluster.namespace, reason, about=about)
            return {event["note"] for event in listed}

        assert await notes("Tried") == {"a", "bb", "dddd"}
        assert await notes("Tried", "u-1") == {"a", "dddd"}
        assert await notes("Tried", NOBODY) == set()

    def event(self, cluster: Cluster, note: str, *, reason: str = "Tried", uid: str = "") -> Manifest:
        about = {"apiVersion": "apps/v1", "kind": "Deployment", "name": NAME, "uid": uid}
        return {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": f"{NAME}.{len(note)}", "namespace": cluster.namespace},
            "eventTime": "2026-01-01T00:00:00.000000Z",
            "type": "Normal",
            "reason": reason,
            "action": "Try",
            "note": note,
            "reportingController": "example.org/test",
            "reportingInstance": "test",
            "regarding": {**about, "namespace": cluster.namespace},
        }

    # DjangoTaskWorkers. An operator may be at work in the cluster: nothing here depends on what it writes.

    def worker(self, cluster: Cluster) -> Manifest:
        return {
            "apiVersion": "djangotasks.dev/v1alpha1",
            "kind": "DjangoTaskWorker",
            "metadata": {"name": NAME, "namespace": cluster.namespace},
            "spec": {
                "image": "shop:1",
                "replicas": 1,
                "database": {"urlSecretRef": {"name": "none"}},
                "scaling": {"driver": "External"},
            },
        }

    async def test_a_worker_that_is_not_there(self, cluster: Cluster) -> None:
        key = self.key(cluster)
        assert (await refused(cluster.kube.get_worker(key))).status == 404
        assert (await refused(cluster.kube.write_worker_replicas(key, "1", 2))).status == 404
        assert (await refused(cluster.kube.apply_worker_status(key, NOBODY, {}))).status == 404

    async def test_the_status_of_another_worker_of_the_name_is_not_written(self, cluster: Cluster) -> None:
        made = await cluster.create(WORKERS, self.worker(cluster))
        error = await refused(cluster.kube.apply_worker_status(self.key(cluster), NOBODY, {"replicas": 1}))
        assert error.status == 409
        uid = made["metadata"]["uid"]
        for status in ({"replicas": 7, "selector": "a=b"}, {"replicas": 8}):
            written = await cluster.kube.apply_worker_status(self.key(cluster), uid, status)
            assert (written["status"], written["metadata"]["generation"]) == (status, 1)

    async def test_replicas_are_written_only_of_the_version_that_was_read(self, cluster: Cluster) -> None:
        made = await cluster.create(WORKERS, self.worker(cluster))
        version = made["metadata"]["resourceVersion"]
        await cluster.edit(WORKERS, NAME, {"metadata": {"labels": {"team": "shop"}}})
        error = await refused(cluster.kube.write_worker_replicas(self.key(cluster), version, 2))
        assert error.status == 409
        assert (await cluster.kube.get_worker(self.key(cluster)))["spec"]["replicas"] == 1

    # Rights

    async def test_who_may_not_is_told_so_whether_there_is_anything_or_not(self, cluster: Cluster) -> None:
        made = await cluster.kube.apply_object(DEPLOYMENTS, self.deployment(cluster), uid=None)
        nobody, key = await cluster.without_rights(), self.key(cluster)
        uid = made["metadata"]["uid"]
        requests: dict[str, Callable[[], Awaitable[object]]] = {
            "get": lambda: nobody.get_object(DEPLOYMENTS, key),
            "get what is not there": lambda: nobody.get_object(DEPLOYMENTS, self.key(cluster, "none")),
            "apply": lambda: nobody.apply_object(DEPLOYMENTS, self.deployment(cluster), uid=uid),
            "delete": lambda: nobody.delete_object(DEPLOYMENTS, key, uid),
            "delete another": lambda: nobody.delete_object(DEPLOYMENTS, key, NOBODY),
            "scale": lambda: nobody.scale_deployment(key, 1),
            "get secret": lambda: nobody.get_secret(cluster.namespace, "none"),
            "list pods": lambda: nobody.list_pods(cluster.namespace, SELECTOR),
            "list events": lambda: nobody.list_events(cluster.namespace, "Tried"),
            "annotate": lambda: nobody.annotate_pod(cluster.namespace, "none", NOBODY, {}),
            "get worker": lambda: nobody.get_worker(key),
            "write replicas": lambda: nobody.write_worker_replicas(key, "1", 1),
            "apply status": lambda: nobody.apply_worker_status(key, NOBODY, {}),
        }
        for what, request in requests.items():
            error = await refused(request())
            assert error.status == 403, what
            assert "forbidden" in describe(error), what
        assert (await self.stored(cluster))["metadata"]["uid"] == uid

    # Watching

    @pytest.fixture
    async def told(self, cluster: Cluster) -> AsyncIterator[Callable[[], Awaitable[Event]]]:
        """The next event of a watch that has begun."""
        watch = cluster.kube.list_and_watch(DEPLOYMENTS.path(cluster.namespace), SELECTOR)
        kind, listed = await anext(watch)
        assert (kind, listed["items"]) == ("LIST", [])

        async def next_event() -> Event:
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    kind, seen = await anext(watch)
                    # Of a controller that says what it has seen.
                    if kind != "MODIFIED" or not self._is_of_the_controller(seen):
                        return kind, seen

        yield next_event
        await watch.aclose()  # type: ignore[attr-defined]

    def _is_of_the_controller(self, seen: Manifest) -> bool:
        latest = seen["metadata"].get("annotations", {}).get("example.org/step")
        if latest == self._step:
            return True
        self._step = latest
        return False

    _step: str | None = None

    def step(self, number: int) -> Manifest:
        """A change that a test can recognise."""
        return {"metadata": {"annotations": {"example.org/step": str(number)}}}

    async def test_a_watch_says_what_is_new_what_has_changed_and_what_is_gone(
        self, cluster: Cluster, told: Callable[[], Awaitable[Event]]
    ) -> None:
        made = await cluster.create(DEPLOYMENTS, self.deployment(cluster))
        kind, seen = await told()
        assert (kind, seen["metadata"]["uid"]) == ("ADDED", made["metadata"]["uid"])
        await cluster.edit(DEPLOYMENTS, NAME, self.step(1))
        kind, seen = await told()
        assert (kind, seen["metadata"]["annotations"]["example.org/step"]) == ("MODIFIED", "1")
        changed = seen["metadata"]["resourceVersion"]
        assert int(changed) > int(made["metadata"]["resourceVersion"])
        await cluster.delete(DEPLOYMENTS, NAME)
        kind, seen = await told()
        assert (kind, seen["metadata"]["uid"]) == ("DELETED", made["metadata"]["uid"])
        assert int(seen["metadata"]["resourceVersion"]) > int(changed)

    async def test_a_watch_follows_the_labels(
        self, cluster: Cluster, told: Callable[[], Awaitable[Event]]
    ) -> None:
        unlabelled = self.deployment(cluster)
        unlabelled["metadata"]["labels"] = {"team": "shop"}
        await cluster.create(DEPLOYMENTS, unlabelled)
        await cluster.edit(DEPLOYMENTS, NAME, {"metadata": {"labels": LABELS}})
        kind, seen = await told()
        assert (kind, seen["metadata"]["labels"]) == ("ADDED", {"team": "shop", **LABELS})
        added = seen["metadata"]["resourceVersion"]
        await cluster.edit(DEPLOYMENTS, NAME, {"metadata": {"labels": dict.fromkeys(LABELS)}})
        kind, seen = await told()
        # As it was when it still belonged to it.
        assert (kind, seen["metadata"]["labels"]) == ("DELETED", {"team": "shop", **LABELS})
        assert int(seen["metadata"]["resourceVersion"]) > int(added)
        await cluster.edit(DEPLOYMENTS, NAME, self.step(1))
        await cluster.edit(DEPLOYMENTS, NAME, {"metadata": {"labels": LABELS}})
        kind, seen = await told()
        assert kind == "ADDED", "and nothing in between"
