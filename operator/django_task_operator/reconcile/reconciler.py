"""One turn of one worker: observe, decide, apply, report."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from django_task_operator import scaling, telemetry
from django_task_operator.backoff import Backoff
from django_task_operator.due import Due
from django_task_operator.errors import InvalidSpec, TransientError, UserError, WorkerError
from django_task_operator.keepers.children import WITH_IMAGE, ChildrenKeeper
from django_task_operator.keepers.cleanup import CleanupKeeper
from django_task_operator.keepers.deployment import DeploymentKeeper
from django_task_operator.keepers.migration import MigrationKeeper
from django_task_operator.keepers.orphans import OrphanKeeper
from django_task_operator.keepers.spec_replicas import SpecReplicasChanged, SpecReplicasKeeper
from django_task_operator.keepers.victims import NOT_YET, VictimKeeper
from django_task_operator.reconcile.observer import Observer
from django_task_operator.reconcile.rivals import LOOK_AGAIN_SECONDS
from django_task_operator.report.reporter import Reporter
from django_task_operator.report.status import timestamp
from django_task_operator.resources import Rotation, build_children, follow, forbidden_fields
from django_task_operator.spec import Worker, key_of
from django_task_operator.turn import Event, Plan, Turn

if TYPE_CHECKING:
    from collections.abc import Callable

    from django_task_operator.keepers.deployment import Outcome
    from django_task_operator.keepers.migration import Migration
    from django_task_operator.keepers.victims import Marking
    from django_task_operator.spec import Manifest
    from django_task_operator.world import World

log = logging.getLogger(__name__)

# The longest time between two turns.
LONGEST_WAIT_SECONDS = 60.0
LONGEST_WAIT = Due(LONGEST_WAIT_SECONDS, "a Secret may have been rotated, or a crash be long ago")
# Users who fix something that is not watched, such as a Secret, should not have to wait for long.
TROUBLE_SECONDS = 5.0
RIVAL_MAY_BE_GONE = Due(LOOK_AGAIN_SECONDS, "the other autoscaler may be gone")
# After an error that may pass by itself, the retry delay doubles between these bounds.
RETRY_SECONDS = (1.0, 30.0)

_REFUSED = (
    "this operator refuses it in a pod template (podTemplates.restricted in its chart). "
    "Remove it, or ask the administrator who installed the operator."
)


class Reconciler:
    """Drives one DjangoTaskWorker to its goal, a turn at a time."""

    def __init__(self, world: World, manifest: Manifest, wake: Callable[[], None]) -> None:
        """Start from the stored object; ``wake`` is called when a turn is due."""
        self._world = world
        self._key = key_of(manifest)
        self._name = self._key.namespace, self._key.name
        uid = manifest["metadata"]["uid"]
        self._deployment = DeploymentKeeper(world, self._key, uid)
        self._children = ChildrenKeeper(world, self._key, uid)
        self._spec_replicas = SpecReplicasKeeper(world, self._key, uid)
        self._victims = VictimKeeper(world, self._key, uid)
        self._orphans = OrphanKeeper(world, uid)
        self._cleanup = CleanupKeeper(world, self._key)
        self._migrations = MigrationKeeper(world, self._key, uid)
        self._reporter = Reporter(world, self._key, uid, manifest.get("status") or {})
        self._observer = Observer(world, self._key, wake)
        self._last_scale_time: str | None = None
        self._backoff = Backoff(*RETRY_SECONDS)
        # A restarted operator takes over the current pods, and removes none before the delay is over.
        deployment = self._deployment.current()
        if deployment and deployment.controller_uid not in {uid, None}:
            deployment = None
        self._replicas = deployment.wanted_replicas if deployment else 0
        self._pace = scaling.Pace()
        self._history = scaling.History(((world.clock(), self._replicas),) if deployment else ())

    def close(self) -> None:
        """Release what the worker holds: its subscription to the database, its queues, its metrics."""
        self._observer.close()
        telemetry.forget(*self._name)

    async def turn(self, manifest: Manifest) -> Due:
        """Take one turn; return when the next one is due at the latest, and why.

        Raises:
            WorkerGone: the DjangoTaskWorker is deleted.
        """
        self._observer.redact.learn_spec(" ".join([*self._name, json.dumps(manifest["spec"])]))
        try:
            worker = self._permitted(Worker.parse(manifest))
        except InvalidSpec as invalid:
            seen = self._observer.objects(manifest["metadata"]["generation"])
            return await self._report(replace(seen, apply_error=invalid))
        limits = worker.spec.scaling
        telemetry.observe_limits(*self._name, least=limits.min_replicas, most=limits.max_replicas)
        seen = await self._observer.observe(worker, self._spec_replicas.asked(manifest))
        if seen.awaits_sample:
            return await self._await_sample(worker, seen)
        self._follow_pace(scaling.Policy.of(worker.spec), seen)
        plan, marking = await self._decide(worker, seen, NOT_YET), NOT_YET
        while plan.marks:
            # Kubernetes has to see them before it sees fewer replicas (kubernetes#126138).
            marking = await self._victims.mark(plan.marks, marking)
            plan = await self._decide(worker, seen, marking)
        telemetry.DECISIONS.labels(*self._name, str(plan.decision.reason)).inc()
        self._trace(seen, plan)
        try:
            done = await self._apply(worker, plan, seen)
        except SpecReplicasChanged:
            return self._next(Due(0.0, "another client has just written spec.replicas"))
        return await self._report(done)

    def _trace(self, seen: Turn, plan: Plan) -> None:
        """Log what the turn has seen and decided, for whoever looks for the cause of a decision."""
        decision, demand = plan.decision, seen.demand
        log.debug(
            "decided",
            extra={
                "worker": str(self._key),
                "reason": str(decision.reason),
                "before": decision.before,
                "replicas": decision.replicas,
                "pending": demand.ready if demand else None,
                "running": demand.running if demand else None,
                "error": seen.database_error.reason if seen.database_error else None,
                "why": decision.why,
            },
        )

    def _permitted(self, worker: Worker) -> Worker:
        """Return the worker, unless it asks for something that this operator refuses.

        Raises:
            InvalidSpec: it does.
        """
        template = worker.spec.pod_template
        if self._world.restricted and (fields := forbidden_fields(template.metadata, template.spec)):
            raise InvalidSpec(field=f"spec.podTemplate.{fields[0]}", problem=_REFUSED)
        return worker

    async def _await_sample(self, worker: Worker, seen: Turn) -> Due:
        """Change nothing before the first sample, so that the right number is then set in one write."""
        if self._reporter.has_reported:
            return self._next(LONGEST_WAIT)
        decision, _ = scaling.decide(seen.driver, self._situation(worker, seen), paused=seen.paused)
        return await self._report(replace(seen, decision=decision))

    async def _decide(self, worker: Worker, seen: Turn, marking: Marking) -> Plan:
        wanted, spec_replicas = scaling.decide(seen.driver, self._situation(worker, seen), paused=seen.paused)
        if seen.rival and seen.deployment:
            current = seen.deployment.wanted_replicas
            wanted = scaling.give_way(wanted, seen.rival.words, current, RIVAL_MAY_BE_GONE)
        decision, marks = await self._victims.choose(
            wanted, seen.deployment, self._observer.subscription, marking
        )
        return Plan(decision, spec_replicas, marks)

    def _situation(self, worker: Worker, seen: Turn) -> scaling.Situation:
        return scaling.Situation(
            scaling.Policy.of(worker.spec),
            seen.demand,
            self._history,
            current=self._replicas,
            asked=seen.asked,
            now=self._world.clock(),
            pace=self._pace,
        )

    def _follow_pace(self, policy: scaling.Policy, seen: Turn) -> None:
        """Improve the estimate of the pace, which a latency target is met by."""
        if not policy.target_latency_seconds:
            self._pace = scaling.Pace()
        elif seen.demand and seen.sampled_at and seen.durations:
            reading = scaling.Reading(
                seen.sampled_at.timestamp(),
                seen.demand.ready,
                seen.demand.running,
                pods=seen.deployment.ready_replicas if seen.deployment else 0,
                tasks=seen.durations.tasks,
                seconds=seen.durations.seconds,
                running_for=seen.durations.running_for,
                complete=seen.demand.ready < policy.limit,
            )
            self._pace = scaling.follow(self._pace, reading, policy.slots)

    async def _apply(self, worker: Worker, plan: Plan, seen: Turn) -> Turn:
        """Apply the plan.

        Raises:
            SpecReplicasChanged: another client has just written ``spec.replicas``: that number counts.
            WorkerGone: the DjangoTaskWorker is deleted.
        """
        scale_error = await self._spec_replicas.write(plan.spec_replicas, instead_of=seen.asked)
        self._history = plan.decision.history
        migration = await self._migrations.advance(
            worker, self._deployment.current(), reachable=seen.database_answers, redact=self._observer.redact
        )
        outcome = await self._keep_deployment(worker, seen, plan.decision.replicas, migration)
        events = [*migration.events, *outcome.events]
        if outcome.scaled:
            events += self._scaled(plan.decision, seen)
        # After the Deployment, which must not wait, for example for a budget of pods that do not exist yet.
        # And an autoscaler must not start from a number other than that of the current pods.
        child_error = None
        if outcome.scaled and not scale_error:
            child_error = await self._keep_children(worker, seen, migration)
        await self._cleanup.end_lingering()
        deployment, running = self._deployment.current(), seen.demand.running if seen.demand else None
        rows = await self._orphans.settle(worker, deployment, self._observer.subscription, running)
        record, own = deployment.runtime if deployment else None, self._world.runtime
        return replace(
            seen,
            decision=plan.decision,
            deployment=deployment,
            runtime=record.words if record else "",
            pending_runtime=own.words if record and record.hash != own.hash else "",
            outdated=self._observer.outdated(deployment),
            pods=(*seen.pods, *migration.pods),
            migration_refusal=migration.refusal,
            orphaned_tasks=rows.orphaned,
            stuck_tasks=rows.stuck,
            apply_error=outcome.error or scale_error or child_error,
            events=(*events, *rows.events),
            dues=(
                *filter(None, (plan.decision.due, migration.due, rows.due)),
                *self._deployment.dues,
                *self._children.dues,
            ),
        )

    async def _keep_deployment(
        self, worker: Worker, seen: Turn, replicas: int, migration: Migration
    ) -> Outcome:
        if migration.error:
            return await self._deployment.hold(replicas, migration.error)
        current = self._deployment.current()
        mine = current if current and current.belongs_to(worker.uid) else None
        rotation = follow(
            mine.rotation if mine else Rotation(),
            seen.url_hash,
            is_asked=worker.spec.database.replaces_pods,
            works=seen.is_sampled,
            has_pods=bool(mine and (mine.replicas or mine.wanted_replicas)),
        )
        return await self._deployment.apply(worker, replicas, migration.migrated, rotation)

    async def _keep_children(self, worker: Worker, seen: Turn, migration: Migration) -> WorkerError | None:
        children = [*build_children(worker, self._world.runtime), *seen.scaling.children(worker)]
        return await self._children.apply(children, held=WITH_IMAGE if migration.error else ())

    def _scaled(self, decision: scaling.Decision, seen: Turn) -> list[Event]:
        """Remember the current replicas, and return events that explain the change."""
        if decision.replicas == decision.before:
            return []
        self._replicas = decision.replicas
        self._last_scale_time = timestamp(datetime.now(UTC))
        if decision.event is None:
            return []
        telemetry.SCALINGS.labels(*self._name, str(decision.event)).inc()
        # An autoscaler cannot scale from or to zero: its own events should say who did.
        at_zero = 0 in {decision.before, decision.replicas}
        autoscaler = seen.autoscaler.uid if seen.autoscaler and at_zero else None
        return [Event("Normal", decision.event, decision.note, autoscaler)]

    async def _report(self, turn: Turn) -> Due:
        turn = replace(turn, last_scale_time=self._last_scale_time)
        status_due = await self._reporter.report(turn.redacted(self._observer.redact))
        dues = [LONGEST_WAIT, *turn.dues, *self._dues_of_errors(turn)]
        return self._next(*dues, *([status_due] if status_due else []))

    def _dues_of_errors(self, turn: Turn) -> list[Due]:
        """Return when to retry after each error."""
        dues = []
        if isinstance(turn.apply_error, TransientError):
            dues.append(Due(self._backoff.next(), f"{turn.apply_error.reason} may be over"))
        else:
            self._backoff.reset()
        if isinstance(turn.apply_error, UserError):
            dues.append(Due(TROUBLE_SECONDS, f"{turn.apply_error.reason} may have been fixed"))
        if turn.database_error:
            dues.append(Due(TROUBLE_SECONDS, f"{turn.database_error.reason} may be over"))
        return dues

    def _next(self, *dues: Due) -> Due:
        soonest = min(dues)
        log.debug(
            "next turn", extra={"worker": str(self._key), "seconds": soonest.seconds, "why": soonest.why}
        )
        return soonest
