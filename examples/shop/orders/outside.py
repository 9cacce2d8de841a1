"""The shop's external services: what a real shop would reach over the network, with realistic delays.

The example has no payment provider. This module takes as long as one, and declines like one.
"""

import asyncio
import time

from django.conf import settings

# Tokens for test cards, as in the test systems of payment providers.
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
    """Book a courier for a parcel and return its tracking number."""
    await asyncio.sleep(0.2 * settings.OUTSIDE_WORLD_PACE)
    return f"track-{address}"


def _wait(seconds: float) -> None:
    time.sleep(seconds * settings.OUTSIDE_WORLD_PACE)
