"""The fake does what the contract says, or the tests that stand on it say nothing."""

from __future__ import annotations

import pytest
from tests.contract.tasktable import TaskTableContract
from tests.unit.tasktable.fake import FakeTaskTable


class TestFake(TaskTableContract):
    @pytest.fixture
    def stocked(self) -> FakeTaskTable:
        return FakeTaskTable()
