"""How hard the properties are tried: the same examples each time, so that a failure is the code's."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("unit", max_examples=60, deadline=None, derandomize=True, database=None)
settings.load_profile("unit")
