"""Numbers as Kubernetes writes them: ``42``, ``1500m``, ``2k``."""

from __future__ import annotations

_SUFFIXES = ("m", "", "k", "M", "G", "T", "P", "E")


def quantity(value: float) -> str:
    """Format a number in the canonical form of resource.Quantity, to a thousandth.

    The canonical suffix is the largest one that leaves an integer (apimachinery's quantity.go).
    """
    number, suffixes = round(value * 1000), iter(_SUFFIXES)
    if number == 0:
        return "0"
    suffix = next(suffixes)
    for larger in suffixes:
        if number % 1000:
            break
        number, suffix = number // 1000, larger
    return f"{number}{suffix}"
