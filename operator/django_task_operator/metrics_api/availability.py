"""Whether the operator serves the cluster's external metrics, for the condition of a worker."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class State(StrEnum):
    """Where the external metrics of the cluster come from."""

    OFF = "Off"  # the operator was told not to serve them
    STARTING = "Starting"
    SERVING = "Serving"
    UNREACHABLE = "Unreachable"  # registered, but the API server cannot get through
    FOREIGN = "Foreign"  # another adapter is registered, and is left alone


@dataclass(frozen=True, slots=True)
class Availability:
    """The state at one moment.

    Args:
        state: an HPA gets the operator's figures while it is Serving, and only then.
        service: that of another adapter, ``namespace/name``; empty in every other state.
        detail: the problem, for people; may be empty.
    """

    state: State
    service: str = ""
    detail: str = ""

    @property
    def is_serving(self) -> bool:
        """Whether an HPA can get the operator's metrics."""
        return self.state is State.SERVING


class MetricsApi(Protocol):
    """What the rest of the operator knows about the metrics API."""

    @property
    def availability(self) -> Availability:
        """The current state. Workers are woken when it changes."""


class Off:
    """A metrics API that is not served."""

    availability = Availability(State.OFF)
