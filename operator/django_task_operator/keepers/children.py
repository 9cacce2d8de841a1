"""Manages a worker's objects other than its Deployment, with no request while they are up to date."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django_task_operator.keepers.applier import Applier

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from django_task_operator.due import Due
    from django_task_operator.errors import WorkerError
    from django_task_operator.spec import Key, Manifest
    from django_task_operator.world import World

# Kinds that run the user's image: left unchanged for as long as the pods of the Deployment are.
WITH_IMAGE = frozenset({"CronJob"})


class ChildrenKeeper:
    """Applies the objects that one worker should have, and deletes those that it should no longer have."""

    def __init__(self, world: World, key: Key, uid: str) -> None:
        """Manage the children of the DjangoTaskWorker with that key and uid."""
        self._appliers = {
            kind: Applier(world, kind, cache, key, uid) for kind, cache in world.caches.children.items()
        }

    @property
    def dues(self) -> tuple[Due, ...]:
        """When children are to be restored that someone else changes again and again."""
        return tuple(filter(None, (applier.due for applier in self._appliers.values())))

    async def apply(self, wanted: Sequence[Manifest], *, held: Collection[str] = ()) -> WorkerError | None:
        """Make the worker's children exactly ``wanted``; return why that was not possible, if so.

        Children of the kinds in ``held`` are left unchanged.

        Raises:
            WorkerGone: the DjangoTaskWorker has been deleted, so nothing may be created.
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
