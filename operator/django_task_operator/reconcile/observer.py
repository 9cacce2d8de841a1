"""What a turn sees: the worker's objects, its database URL, and its tasks as last counted."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from django_task_operator import scaling
from django_task_operator.cluster.secrets import Named
from django_task_operator.errors import WorkerError
from django_task_operator.observed.objects import outdated
from django_task_operator.reconcile.evictions import Evictions
from django_task_operator.reconcile.rivals import Rivals
from django_task_operator.redaction import Redactor
from django_task_operator.resources import url_hash
from django_task_operator.spec import Driver, SecretKeyRef
from django_task_operator.tasktable import (
    DatabaseURL,
    QueueDemand,
    Selection,
    check_parts,
    root_cert,
    url_of_parts,
)
from django_task_operator.turn import Turn

if TYPE_CHECKING:
    from collections.abc import Callable

    from django_task_operator.observed.objects import Deployment
    from django_task_operator.spec import Connection, Database, Key, Worker
    from django_task_operator.tasktable import Subscription
    from django_task_operator.world import World


class Observer:
    """Sees for one worker, and holds its place at the database.

    ``redact`` takes everything that is known of the worker's database URLs out of a text, and
    ``subscription`` is None until there was a URL.
    """

    def __init__(self, world: World, key: Key, wake: Callable[[], None]) -> None:
        """``wake`` is called when the tasks that were counted call for a turn."""
        self.redact = Redactor()
        self.subscription: Subscription | None = None
        self._world = world
        self._key = key
        self._wake = wake
        self._rivals = Rivals(world, key)
        self._evictions = Evictions(world, key)
        self._url_refused = False
        self._subscribed: tuple[object, ...] = ()
        world.figures.expect(key)

    def close(self) -> None:
        """Release what the worker holds: its subscription to the database, its queues, its metrics."""
        if self.subscription:
            self.subscription.close()
        self._world.served_queues.drop(self._key)
        self._world.figures.drop(self._key)

    def objects(self, generation: int) -> Turn:
        """Return the worker's objects from the caches, for a turn with a spec of that generation."""
        deployment = self._world.caches.deployments.get(self._key, self._key.name)
        return Turn(
            self._key,
            generation,
            deployment=deployment,
            pods=tuple(self._world.caches.pods.of(self._key)),
            outdated=self.outdated(deployment),
        )

    def outdated(self, deployment: Deployment | None) -> frozenset[str]:
        """Return the names of the ReplicaSets that a Deployment is replacing."""
        return outdated(deployment, self._world.caches.replica_sets.of(self._key))

    async def observe(self, worker: Worker, asked: int | None) -> Turn:
        """Everything that a turn is decided from; ``asked`` is what ``spec.replicas`` says."""
        driver = worker.spec.scaling.driver
        autoscalers = self._world.caches.autoscalers.of(self._key) if driver is Driver.HPA else ()
        objects = self.objects(worker.generation)
        seen = replace(
            objects,
            rival=await self._rivals.look(objects.deployment),
            evicted_by=await self._evictions.look(objects.pods),
            driver=driver,
            asked=asked,
            paused=worker.spec.paused,
            autoscaler=next((a for a in autoscalers if a.controller_uid == worker.uid), None),
            metrics=self._world.metrics_api.availability,
        )
        database = worker.spec.database
        secret = (
            database.operator_url_secret_ref.name if database.operator_url_secret_ref else database.secret
        )
        try:
            url, pods_url = await self._urls(database)
            seen = replace(seen, url_hash=await self._hash(worker, pods_url))
            authority = ""
            if ref := database.ssl_root_cert_secret_ref:
                text = await self._read(ref, "sslRootCertSecretRef")
                authority = root_cert(text, secret=ref.name, key=ref.key)
            place = self._world.tokens.applied(self._key.namespace, DatabaseURL.parse(url, authority))
            subscription = self._subscribe(worker, place, secret)
        except WorkerError as error:
            self._url_refused = True
            self._world.figures.fail(self._key, secret, error.message)
            return replace(seen, database_error=error)
        self._url_refused = False
        self._world.figures.follow(self._key, subscription, secret)
        observation = subscription.observation
        demand = queues = None
        if observation.demand and not observation.error:
            named = () if subscription.selection.is_every_queue else worker.spec.queues
            queues = {queue: QueueDemand() for queue in named if queue not in worker.spec.exclude_queues}
            queues |= observation.demand.queues
            demand = scaling.Demand(
                observation.demand.ready, observation.demand.running, observation.oldest_ready_seconds
            )
        return replace(
            seen,
            demand=demand,
            queues=queues,
            database_error=observation.error,
            sampled_at=observation.sampled_at,
            sample_seconds=observation.sample_seconds,
            indexed=observation.indexed,
            durations=subscription.durations,
            shared_queue=self._world.served_queues.shared(self._key),
            unserved_queues=tuple(sorted(unserved.queue for unserved in subscription.unserved)),
        )

    async def _read(self, ref: SecretKeyRef, field: str, secret_field: str = "") -> str:
        """Read what ``field`` of spec.database names; ``secret_field`` names the Secret, if another does."""
        failing = bool(self.subscription and self.subscription.observation.error)
        return await self._world.secrets.read(
            self._key.namespace,
            ref,
            Named(f"spec.database.{secret_field or field}.name", f"spec.database.{field}.key"),
            in_trouble=failing or self._url_refused,
        )

    async def _urls(self, database: Database) -> tuple[str, str | None]:
        """The URL that the operator uses, and that of new pods; None if that is another and not known.

        Raises:
            WorkerError: the operator's cannot be read.
        """
        ref = database.operator_url_secret_ref
        if ref is None:
            url = await self._pods_url(database)
            return url, url
        url = await self._read(ref, "operatorUrlSecretRef")
        self.redact.learn(url)
        try:
            # Even if no hash of it is needed, because messages of the pods may quote it.
            return url, await self._pods_url(database)
        except WorkerError:
            # The kubelet reports pods that cannot start.
            return url, None

    async def _pods_url(self, database: Database) -> str:
        if database.connection:
            return await self._url_of(database.connection)
        url = await self._read(database.url_secret_ref, "urlSecretRef") if database.url_secret_ref else ""
        self.redact.learn(url)
        return url

    async def _url_of(self, connection: Connection) -> str:
        parts = {part: given.value or "" for part, given in connection.parts.items()}
        errors = []
        for part, given in connection.parts.items():
            if given.key:
                ref = SecretKeyRef(name=connection.secret_ref.name, key=given.key)
                try:
                    parts[part] = await self._read(ref, f"connection.{part}", "connection.secretRef")
                except WorkerError as error:
                    errors.append(error)
        url = url_of_parts(connection.engine, parts, connection.options)
        # Also where a part is missing: the pods have the others all the same.
        self.redact.learn(url)
        if errors:
            raise errors[0]
        check_parts(parts, url)
        return url

    async def _hash(self, worker: Worker, url: str | None) -> str | None:
        """Hash the URL that new pods get; None if it is not known or not needed."""
        if url is None or not worker.spec.database.replaces_pods:
            return None
        key = await self._world.hash_key.get()
        return url_hash(key, worker.uid, url) if key else None

    def _subscribe(self, worker: Worker, url: DatabaseURL, secret: str) -> Subscription:
        spec, policy = worker.spec, scaling.Policy.of(worker.spec)
        selection = Selection(spec.backend, spec.queues, spec.exclude_queues)
        measures = bool(policy.target_latency_seconds)
        wanted = (url, selection, secret, policy.limit, spec.scaling.poll_interval_seconds, measures)
        if self.subscription is None or wanted != self._subscribed:
            if self.subscription:
                self.subscription.close()
            self._subscribed = wanted
            self.subscription = self._world.databases.subscribe(
                url,
                selection,
                secret=(self._key.namespace, secret),
                limit=policy.limit,
                poll_seconds=spec.scaling.poll_interval_seconds,
                wake=self._wake,
                measures=measures,
            )
            self._world.served_queues.set(self._key, url, selection)
        return self.subscription
