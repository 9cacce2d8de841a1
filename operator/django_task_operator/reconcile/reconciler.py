"""One turn of one worker: observe, decide, apply, report."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from django_task_operator import scaling, telemetry
from django_task_operator.contract import EventReason
from django_task_operator.errors import InvalidSpec, TransientError, UserError, WorkerError
from django_task_operator.keepers.children import WITH_IMAGE, ChildrenKeeper
from django_task_operator.keepers.deployment import DeploymentKeeper
from django_task_operator.keepers.migration import MigrationKeeper
from django_task_operator.keepers.orphans import Orphans
from django_task_operator.keepers.spec_replicas import ScaleKeeper, ScaleMoved
from django_task_operator.keepers.victims import ScaleIn
from django_task_operator.redaction import Redactor
from django_task_operator.report.reporter import Reporter
from django_task_operator.report.status import timestamp
from django_task_operator.resources import build_children
from django_task_operator.spec import Driver, Worker, key_of
from django_task_operator.tasktable import DatabaseURL, Selection
from django_task_operator.turn import Event, Turn

if TYPE_CHECKING:
    from collections.abc import Callable

    from django_task_operator.keepers.deployment import Outcome
    from django_task_operator.keepers.migration import Migration
    from django_task_operator.spec import Manifest
    from django_task_operator.tasktable import Subscription
    from django_task_operator.world import World

# A turn at least so often, in case a Secret was rotated or a crash is to be forgotten.
LONGEST_WAIT_SECONDS = 60.0
# Users who mend a Secret or a Deployment that nothing watches should not have to wait for long.
TROUBLE_SECONDS = 5.0
# What may pass by itself is tried again after a delay that doubles between these.
RETRY_SECONDS = (1.0, 30.0)


class Reconciler:
    """Drives one DjangoTaskWorker to its goal, a turn at a time."""

    def __init__(self, world: World, manifest: Manifest, wake: Callable[[], None]) -> None:
        """Start from the stored object; ``wake`` is called when a turn is due."""
        self._world = world
        self._wake = wake
        self._key = key_of(manifest)
        uid = manifest["metadata"]["uid"]
        self._keeper = DeploymentKeeper(world, self._key, uid)
        self._children = ChildrenKeeper(world, self._key, uid)
        self._scale = ScaleKeeper(world, self._key, uid)
        self._scale_in = ScaleIn(world, self._key, uid)
        self._orphans = Orphans(world, uid)
        self._migrations = MigrationKeeper(world, self._key, uid)
        self._reporter = Reporter(world, self._key, uid, manifest.get("status") or {})
        self._redact = Redactor()
        self._url_refused = False
        self._subscription: Subscription | None = None
        self._subscribed: tuple[object, ...] = ()
        self._last_scale_time: str | None = None
        self._retry_seconds = RETRY_SECONDS[0]
        world.figures.expect(self._key)
        # A restarted operator takes over what runs, and scales nothing in before the delay is over.
        deployment = self._keeper.current()
        if deployment and deployment.controller_uid not in {uid, None}:
            deployment = None
        self._replicas = deployment.wanted_replicas if deployment else 0
        self._history = scaling.History(((world.clock(), self._replicas),) if deployment else ())

    def close(self) -> None:
        """Give back what the worker held: its place at the database, its queues, its metrics."""
        if self._subscription:
            self._subscription.close()
        self._world.served_queues.drop(self._key)
        self._world.figures.drop(self._key)
        telemetry.forget(self._key.namespace, self._key.name)

    async def turn(self, manifest: Manifest) -> float:
        """Take one turn and return after how many seconds the next is due at the latest.

        Raises:
            WorkerGone: the DjangoTaskWorker is deleted.
        """
        try:
            worker = Worker.parse(manifest)
        except InvalidSpec as invalid:
            seen = replace(self._see(manifest["metadata"]["generation"]), apply_error=invalid)
        else:
            seen = await self._observe(worker, self._scale.asked(manifest))
            if seen.awaits_sample and self._reporter.has_reported:
                # The first sample after a restart or a change is on its way, and what is known holds.
                return LONGEST_WAIT_SECONDS
            try:
                seen = await self._apply(worker, self._decide(worker, seen), seen)
            except ScaleMoved:
                return 0.0
            seen = await self._settle_orphans(worker, seen)
        report_due = await self._reporter.report(seen.redacted(self._redact))
        return self._next_turn(seen, report_due)

    def _see(self, generation: int) -> Turn:
        return Turn(
            self._key,
            generation,
            deployment=self._keeper.current(),
            pods=tuple(self._world.pods.of(self._key)),
            last_scale_time=self._last_scale_time,
        )

    async def _observe(self, worker: Worker, asked: int | None) -> Turn:
        autoscalers = self._world.autoscalers.of(self._key)
        seen = replace(
            self._see(worker.generation),
            driver=worker.spec.scaling.driver,
            asked=asked,
            paused=worker.spec.paused,
            autoscaler=next((a for a in autoscalers if a.controller_uid == worker.uid), None),
            metrics=self._world.metrics_api.availability,
        )
        failing = bool(self._subscription and self._subscription.observation.error)
        try:
            url = await self._world.secrets.read(
                self._key.namespace,
                worker.spec.database.url_secret_ref,
                in_trouble=failing or self._url_refused,
            )
            self._redact.learn(url)
            subscription = self._subscribe(worker, DatabaseURL.parse(url))
        except WorkerError as error:
            self._url_refused = True
            self._world.figures.fail(self._key, worker.spec.database.url_secret_ref.name, error.message)
            return replace(seen, database_error=error)
        self._url_refused = False
        self._world.figures.follow(self._key, subscription, worker.spec.database.url_secret_ref.name)
        observation = subscription.observation
        demand = None
        if observation.demand and not observation.error:
            demand = scaling.Demand(
                observation.demand.ready, observation.demand.running, observation.oldest_ready_seconds
            )
        return replace(
            seen,
            demand=demand,
            database_error=observation.error,
            sampled_at=observation.sampled_at,
            sample_seconds=observation.sample_seconds,
            indexed=observation.indexed,
            shared_queue=self._world.served_queues.shared(self._key),
            unserved_queues=tuple(sorted(unserved.queue for unserved in subscription.unserved)),
        )

    def _subscribe(self, worker: Worker, url: DatabaseURL) -> Subscription:
        spec, limit = worker.spec, _policy(worker).limit
        selection = Selection(spec.backend, spec.queues, spec.exclude_queues)
        wanted = (url, selection, limit, spec.scaling.poll_interval_seconds)
        if self._subscription is None or wanted != self._subscribed:
            if self._subscription:
                self._subscription.close()
            self._subscribed = wanted
            self._subscription = self._world.databases.subscribe(
                url,
                selection,
                limit=limit,
                poll_seconds=spec.scaling.poll_interval_seconds,
                wake=self._wake,
            )
            self._world.served_queues.set(self._key, url, selection)
        return self._subscription

    def _decide(self, worker: Worker, seen: Turn) -> scaling.Decision:
        policy, history, current, now = _policy(worker), self._history, self._replicas, self._world.clock()
        if seen.paused:
            return scaling.Decision(current, scaling.Reason.HELD, "paused", history)
        if seen.driver is Driver.EXTERNAL:
            return scaling.follow(policy, history, current, seen.asked, now)
        if seen.driver is Driver.HPA:
            return scaling.share(policy, seen.demand, history, current, seen.asked, now)
        if seen.demand is None:
            return scaling.hold(policy, history, current, "the demand is not known")
        return scaling.decide(policy, seen.demand, history, current, now)

    async def _apply(self, worker: Worker, decision: scaling.Decision, seen: Turn) -> Turn:
        seen = replace(seen, decision=decision)
        if seen.awaits_sample:
            # The first sample is on its way: create with the right number, in one write.
            return seen
        # Before the Deployment: where somebody has just asked for another number, that one counts.
        agreed = scaling.agree(seen.driver, decision.replicas, seen.asked, paused=seen.paused)
        scale_error = await self._scale.write(agreed, instead_of=seen.asked)
        self._history = decision.history
        decision = await self._scale_in.spare_busy_pods(decision, seen.deployment, self._subscription)
        seen = replace(seen, decision=decision)
        migration = await self._migrate(worker, seen)
        outcome = await self._keep_deployment(worker, decision.replicas, migration)
        if outcome.scaled and decision.replicas != self._replicas:
            await self._scaled(decision, seen)
        # After the Deployment, which must not wait: for a budget of pods that are not there yet, say.
        # And an autoscaler must not start from another number than that of the pods that there are.
        child_error = None
        if outcome.scaled and not scale_error:
            held = WITH_IMAGE if migration.error else ()
            children = build_children(worker, self._world.runtime)
            child_error = await self._children.apply(children, held=held)
        return replace(
            seen,
            pods=(*seen.pods, *migration.pods),
            wake_after=migration.wake_after,
            apply_error=outcome.error or scale_error or child_error,
            deployment=self._keeper.current(),
            last_scale_time=self._last_scale_time,
        )

    async def _migrate(self, worker: Worker, seen: Turn) -> Migration:
        migration = await self._migrations.advance(
            worker, self._keeper.current(), reachable=seen.database_answers, redact=self._redact
        )
        if migration.started:
            note = f"Job {migration.started} migrates the database before the new pods start."
            await self._reporter.tell(Event("Normal", EventReason.MIGRATION_STARTED, note))
        return migration

    async def _keep_deployment(self, worker: Worker, replicas: int, migration: Migration) -> Outcome:
        if migration.error:
            return await self._keeper.hold(replicas, migration.error)
        outcome = await self._keeper.apply(worker, replicas, migration.migrated)
        if outcome.restored:
            note = f"The Deployment was {outcome.restored} by somebody else: put back."
            await self._reporter.tell(Event("Normal", EventReason.DEPLOYMENT_RESTORED, note))
        return outcome

    async def _settle_orphans(self, worker: Worker, seen: Turn) -> Turn:
        running = seen.demand.running if seen.demand else None
        found = await self._orphans.look(worker, seen.deployment, self._subscription, running)
        for event in found.events:
            await self._reporter.tell(event)
        waits = [wait for wait in (seen.wake_after, found.wake_after) if wait is not None]
        seen = replace(seen, wake_after=min(waits, default=None))
        return replace(seen, orphaned_tasks=found.orphaned, stuck_tasks=found.stuck)

    async def _scaled(self, decision: scaling.Decision, seen: Turn) -> None:
        before, self._replicas = self._replicas, decision.replicas
        self._last_scale_time = timestamp(datetime.now(UTC))
        up = decision.replicas > before
        if up and decision.reason in {scaling.Reason.HELD, scaling.Reason.BUSY_PODS_KEPT}:
            # Somebody else added pods, which stay while they run tasks.
            return
        reason = scaling.Reason.SCALED_UP if up else scaling.Reason.SCALED_DOWN
        telemetry.SCALINGS.labels(self._key.namespace, self._key.name, str(reason)).inc()
        arrow = f"{before} -> {decision.replicas}"
        note = decision.message if arrow in decision.message else f"{decision.message}: {arrow}"
        # Whoever looks at the autoscaler alone reads there who took the steps that it cannot take.
        own_step = seen.driver is Driver.HPA and seen.autoscaler and 0 in {before, decision.replicas}
        uid = seen.autoscaler.uid if own_step and seen.autoscaler else None
        await self._reporter.tell(Event("Normal", str(reason), note), autoscaler=uid)

    def _next_turn(self, seen: Turn, report_due: float | None) -> float:
        waits = [LONGEST_WAIT_SECONDS]
        if report_due is not None:
            waits.append(report_due)
        if seen.decision and seen.decision.wake_after is not None:
            waits.append(seen.decision.wake_after)
        if seen.wake_after is not None:
            waits.append(seen.wake_after)
        if isinstance(seen.apply_error, TransientError):
            waits.append(self._retry_seconds)
            self._retry_seconds = min(self._retry_seconds * 2, RETRY_SECONDS[1])
        else:
            self._retry_seconds = RETRY_SECONDS[0]
        if seen.database_error or isinstance(seen.apply_error, UserError):
            waits.append(TROUBLE_SECONDS)
        return min(waits)


def _policy(worker: Worker) -> scaling.Policy:
    wanted = worker.spec.scaling
    return scaling.Policy(
        min_replicas=wanted.min_replicas,
        max_replicas=wanted.max_replicas,
        tasks_per_replica=worker.spec.tasks_per_replica,
        target_latency_seconds=wanted.target_latency_seconds,
        scale_down_delay_seconds=wanted.scale_down_delay_seconds,
    )
