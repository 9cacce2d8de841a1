"""Migrates a worker's database before the pods of a new version start, in a Job, once for each version."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from django_task_operator.cluster.api_errors import API_ERRORS, describe
from django_task_operator.contract import EventReason
from django_task_operator.due import Due
from django_task_operator.errors import Migrating, MigrationFailed, WorkerError
from django_task_operator.keepers.applier import Applier
from django_task_operator.redaction import Foreign
from django_task_operator.resources import build_migration, migration_hash
from django_task_operator.spec import MigrationPolicy
from django_task_operator.turn import Event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from django_task_operator.observed.objects import Deployment, Job
    from django_task_operator.observed.pods import JobPod, Pod
    from django_task_operator.spec import Key, Manifest, Worker
    from django_task_operator.world import World

log = logging.getLogger(__name__)

# No watch tells a worker that the migration of another worker on the same database is over.
NEIGHBOUR_SECONDS = 2.0

# A Job without pods is one whose pods are refused, or one that is a moment old. No watch tells which.
NO_PODS_SECONDS = 5.0
# The event of a Job whose pod is refused, and what its note begins with (k8s.io/kubernetes,
# pkg/controller/controller_utils.go: FailedCreatePodReason).
FAILED_CREATE = "FailedCreate"
ERROR_CREATING = "Error creating: "

# How many characters from the end of a migration's log are shown, in whole lines.
LONGEST_WORDS = 500
# The kubelet keeps this many bytes from the end of a log: the first line may be incomplete.
KEPT_OF_LOG = 2048


@dataclass(frozen=True, slots=True)
class Migration:
    """The state of the migration for the current spec.

    While there is an ``error``, no pods of the new version may start. Otherwise, ``migrated`` is to be
    written to the Deployment. ``pods`` are those of the current Job, and ``refusal`` is why it has none: the
    words of whoever refuses them.
    """

    migrated: str | None = None
    error: WorkerError | None = None
    pods: tuple[Pod, ...] = ()
    refusal: str | None = None
    due: Due | None = None
    events: tuple[Event, ...] = ()


class MigrationKeeper:
    """Runs the migrations of one worker, and removes the Jobs of previous ones.

    The Deployment records what was migrated for its pods, so that going back to them needs no Job.
    """

    def __init__(self, world: World, key: Key, uid: str) -> None:
        """Manage the migrations of the DjangoTaskWorker with that key and uid."""
        self._world = world
        self._key = key
        self._uid = uid
        self._applier = Applier(world, "Job", world.caches.migrations, key, uid)
        # The uid of the Job whose pods are refused, and the words of the refusal.
        self._refusal: tuple[str, str] | None = None
        self._ask_again_at = float("-inf")

    async def advance(
        self,
        worker: Worker,
        deployment: Deployment | None,
        *,
        reachable: bool,
        redact: Callable[[str], str],
    ) -> Migration:
        """Take the next step towards a migrated database, if the worker asks for migrations.

        ``reachable`` says whether the database answers: otherwise a migration would only fail.

        Raises:
            WorkerGone: the DjangoTaskWorker has been deleted, so nothing may be created.
        """
        is_asked = worker.spec.migrations.policy is MigrationPolicy.BEFORE_ROLLOUT
        wanted = migration_hash(worker.spec) if is_asked else None
        mine = deployment if deployment and deployment.belongs_to(self._uid) else None
        jobs = self._applier.owned()
        error = await self._delete(job for job in jobs if job.migrates != wanted)
        if wanted is None or (mine and mine.migrated == wanted):
            await self._delete(job for job in jobs if not job.is_over and self._lingers(self._key, job))
            return Migration(wanted)
        job = next((job for job in jobs if job.migrates == wanted), None)
        if job is None:
            return Migration(error=error) if error else await self._begin(worker, wanted, reachable=reachable)
        pods = sorted(self._pods_of(self._key, job), key=lambda pod: pod.created)
        if job.complete or any(pod.has_done_it for pod in pods):
            return Migration(wanted)
        if job.failed is not None or any(pod.lingers for pod in pods):
            refused = self._refusal[1] if self._refusal and self._refusal[0] == job.uid else ""
            return Migration(error=_failure(job, pods, redact, refused, has_pods=mine is not None))
        return Migration(
            error=Migrating(problem=_progress(job, pods, redact)),
            pods=tuple(pod.pod for pod in pods),
            refusal=None if pods else await self._refusal_of(job),
            due=None if pods else Due(NO_PODS_SECONDS, "the Job's pods may be refused"),
        )

    async def _begin(self, worker: Worker, wanted: str, *, reachable: bool) -> Migration:
        manifest = build_migration(worker, self._world.runtime)
        if refusal := self._applier.refused(manifest["metadata"]["name"], wanted):
            return Migration(error=refusal)
        if not reachable:
            return Migration(
                error=Migrating(problem="Waiting until the database answers before migrating it.")
            )
        if obstacle := self._obstacle():
            return Migration(error=Migrating(problem=obstacle), due=Due(NEIGHBOUR_SECONDS, obstacle))
        # No other worker's turn may reach the same conclusion before the Job is visible.
        async with self._world.migrating:
            applied = await self._applier.apply(manifest, asked=wanted)
        if applied.postponed:
            problem = "Waiting to create the migration's Job, which someone deletes again and again."
            return Migration(error=Migrating(problem=problem), due=self._applier.due)
        if applied.state is None:
            return Migration(error=applied.error)
        progress = _progress(applied.state)
        started = Event("Normal", EventReason.MIGRATION_STARTED, progress)
        return Migration(error=Migrating(problem=progress), events=(started,) if applied.created else ())

    def _obstacle(self) -> str | None:
        """Return what else is migrating the same database: two migrations at a time would conflict."""
        if any(pod.running for pod in self._world.caches.migration_pods.of(self._key)):
            return "Waiting for the previous version's migration to finish."
        if self._world.migrating.locked():
            return "Waiting for its turn to migrate the database."
        for neighbour in self._world.served_queues.neighbours(self._key):
            if any(pod.running for pod in self._world.caches.migration_pods.of(neighbour)) or any(
                self._may_start(neighbour, job) for job in self._world.caches.migrations.of(neighbour)
            ):
                return f"Waiting for the migration of DjangoTaskWorker {neighbour} on the same database."
        return None

    def _may_start(self, owner: Key, job: Job) -> bool:
        if self._lingers(owner, job):
            return False
        unfinished = [pod for pod in self._pods_of(owner, job) if pod.failure is None]
        return not job.is_over and not (unfinished and all(pod.pod.trouble for pod in unfinished))

    def _lingers(self, owner: Key, job: Job) -> bool:
        """Whether the Job is done but waits for injected containers that do not end."""
        return any(pod.lingers for pod in self._pods_of(owner, job))

    def _pods_of(self, owner: Key, job: Job) -> list[JobPod]:
        return [pod for pod in self._world.caches.migration_pods.of(owner) if pod.job_uid == job.uid]

    async def _refusal_of(self, job: Job) -> str | None:
        """Return why the Job has no pods, if its controller has said so in an event.

        Unlike a Deployment, a Job has no condition that says it.
        """
        if self._world.clock() >= self._ask_again_at:
            self._ask_again_at = self._world.clock() + NO_PODS_SECONDS
            try:
                events = await self._world.kube.list_events(self._key.namespace, FAILED_CREATE, about=job.uid)
            except API_ERRORS as error:
                log.warning("events not listed", extra={"worker": str(self._key), "error": describe(error)})
            else:
                self._refusal = (job.uid, last_refusal(events, job.name)) if events else None
        return self._refusal[1] if self._refusal and self._refusal[0] == job.uid else None

    async def _delete(self, superseded: Iterable[Job]) -> WorkerError | None:
        """Delete Jobs, but not during a migration: not every database can roll back half of one."""
        for job in superseded:
            if any(pod.running for pod in self._pods_of(self._key, job)):
                continue
            if error := await self._applier.delete(job):
                return error
        return None


def last_words(log: str, redact: Callable[[str], str]) -> str:
    """Return the last lines of a log, redacted."""
    lines = log.splitlines()
    if len(log.encode()) >= KEPT_OF_LOG:
        # If a password were cut off, the rest of it could not be recognized and hidden.
        lines = lines[1:]
    kept: list[str] = []
    for line in reversed(redact("\n".join(lines)).splitlines()):
        said = " ".join(line.split())
        if said and len(" | ".join([said, *kept])) <= LONGEST_WORDS:
            kept.insert(0, said)
        elif said:
            break
    return " | ".join(kept)


def _progress(job: Job, pods: Sequence[JobPod] = (), redact: Callable[[str], str] = str) -> str:
    failures = [pod.failure for pod in pods if pod.failure is not None]
    troubles = [pod.pod.redacted(redact).told for pod in pods if pod.failure is None and pod.pod.trouble]
    said = f"Job {job.name} migrates the database before the new pods start."
    if failures:
        attempts = "attempt" if len(failures) == 1 else "attempts"
        said += f" {len(failures)} {attempts} failed: {_shown(failures[-1], redact)}."
    if troubles:
        said += f" Its pod cannot start: {troubles[-1][:LONGEST_WORDS].rstrip('.')}."
    return said


def _failure(
    job: Job, pods: Iterable[JobPod], redact: Callable[[str], str], refused: str, *, has_pods: bool
) -> MigrationFailed:
    failed = [pod for pod in pods if pod.failure is not None]
    how = (failed[-1].failure if failed else None) or job.failed or ""
    words = last_words(failed[-1].words, redact) if failed else ""
    problem = f"The end of its log: {words}" if words else ""
    if refused and not failed:
        problem = f"Its pods could not be created: {redact(refused)}"
    return MigrationFailed(
        job=job.name,
        how=_shown(how, redact).rstrip("."),
        kept="; those of the previous version keep working" if has_pods else "",
        problem=problem,
    )


def last_refusal(events: Iterable[Manifest], job: str) -> str:
    """Return why a pod of the Job of that name was last refused, from the Job's events (of events.k8s.io).

    Each attempt has another pod with a name of its own. The Job's is given instead, so that the same refusal
    is no news.
    """
    # A controller that still posts to the older API leaves no eventTime, and one that does not, only that.
    newest = max(
        events, key=lambda event: event.get("deprecatedLastTimestamp") or event.get("eventTime") or ""
    )
    said = str(newest.get("note") or "").removeprefix(ERROR_CREATING).rstrip(".")
    return re.sub(rf"\b{re.escape(job)}-[a-z0-9]{{5}}\b", job, said)


def _shown(text: str, redact: Callable[[str], str]) -> str:
    return redact(text) if isinstance(text, Foreign) else text
