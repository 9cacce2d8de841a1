"""For how long a slot may do something other than run a task before it counts as stuck."""

from dataclasses import dataclass

from .status_board import SlotStatus, State

# The kernel takes two minutes to give up connecting to an address that swallows packets.
CONNECTING_SECONDS = 300.0


@dataclass(frozen=True)
class StuckLimits:
    """The limits of one worker, in seconds."""

    seconds: float
    interval: float  # --interval: what an idle slot waits anyway

    def exceeded_by(self, slot: SlotStatus) -> bool:
        """Whether the slot is stuck. One that runs a task never is."""
        state = slot.state
        if state in {State.RUNNING, State.ENDED}:
            return False
        limit = CONNECTING_SECONDS if state is State.DISCONNECTED else self.seconds
        if state is State.IDLE:
            limit += self.interval
        return slot.seconds_in_state > limit
