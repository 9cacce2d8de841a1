"""The fake fulfils the contract; otherwise tests that use it would prove nothing."""

from __future__ import annotations

import pytest
from tests.contract.tasktable import TaskTableContract
from tests.unit.tasktable.fake import FakeTaskTable


class TestFake(TaskTableContract):
    @pytest.fixture
    def stocked(self) -> FakeTaskTable:
        return FakeTaskTable()
