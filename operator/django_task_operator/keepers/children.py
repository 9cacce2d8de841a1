"""Keeps the objects beside a worker's Deployment, with no request while they are as they should be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django_task_operator.keepers.applier import Applier

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from django_task_operator.errors import WorkerError
    from django_task_operator.spec import Key, Manifest
    from django_task_operator.world import World

# What runs the user's image: held as they are while the pods of the Deployment are.
WITH_IMAGE = frozenset({"CronJob"})


class ChildrenKeeper:
    """Applies what one worker should have, and deletes what it should no longer have."""

    def __init__(self, world: World, key: Key, uid: str) -> None:
        """Work for the DjangoTaskWorker with that key and uid."""
        self._appliers = {
            kind: Applier(world, kind, cache, key, uid) for kind, cache in world.caches.children.items()
        }

    async def apply(self, wanted: Sequence[Manifest], *, held: Collection[str] = ()) -> WorkerError | None:
        """Make the worker's children exactly ``wanted``; return what stands in the way, if anything.

        Those of the kinds in ``held`` are left as they are.

        Raises:
            WorkerGone: the DjangoTaskWorker is deleted, so that nothing may be created.
        """
        wanted = [manifest for manifest in wanted if manifest["kind"] not in held]
        names = {(manifest["kind"], manifest["metadata"]["name"]) for manifest in wanted}
        unwanted = [
            (applier, state)
            for kind, applier in self._appliers.items()
            if kind not in held
            for state in applier.owned()
            if (kind, state.name) not in names
        ]
        applied = [await self._appliers[manifest["kind"]].apply(manifest) for manifest in wanted]
        errors = [each.error for each in applied]
        errors += [await applier.delete(state) for applier, state in unwanted]
        return next((error for error in errors if error), None)
