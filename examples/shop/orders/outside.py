"""The shop's outside world: what a real one would reach over the network, with its waiting.

An example has no payment provider. What stands here takes as long as one and says no like one.
"""

import asyncio
import time

from django.conf import settings

# Tokens that stand for a card, as payment providers have them in their test systems.
GOOD_CARD = "tok_visa"
DECLINED_CARD = "tok_declined"


class CardDeclinedError(Exception):
    """The customer's bank declined the card. Ask the customer for another one."""


def charge(card_token: str, reference: str) -> str:
    """Charge a card and return the provider's receipt. The same reference is never charged twice."""
    _wait(0.3)
    if card_token == DECLINED_CARD:
        raise CardDeclinedError(f"payment {reference} was declined")
    return f"receipt-{reference}"


def render_invoice(lines: list[str]) -> str:
    """Typeset an invoice, which is slow work."""
    _wait(1.8)
    return "\n".join(lines)


async def book_courier(address: str) -> str:
    """Book a parcel's way and return its tracking number."""
    await asyncio.sleep(0.2 * settings.OUTSIDE_WORLD_PACE)
    return f"track-{address}"


def _wait(seconds: float) -> None:
    time.sleep(seconds * settings.OUTSIDE_WORLD_PACE)
