from __future__ import annotations

import logging
import threading

import pytest
from django_db_worker.after_fork import load, warn_of_threads
from django_db_worker.options import OptionsError


@pytest.mark.parametrize("setting", [None, ""])
def test_without_the_setting_there_is_nothing_to_call(setting: object) -> None:
    assert load(setting) is None


def test_a_function_by_its_path() -> None:
    assert load("threading.active_count") is threading.active_count


@pytest.mark.parametrize(
    "setting", [1, ("threading", "active_count"), "threading.nothing", "threading", "os.sep"]
)
def test_what_names_no_function(setting: object) -> None:
    with pytest.raises(OptionsError, match=r"^DB_WORKER_AFTER_FORK is .* by its dotted path, such as"):
        load(setting)


def test_threads_are_named_unless_the_project_starts_them_itself(caplog: pytest.LogCaptureFixture) -> None:
    end = threading.Event()
    thread = threading.Thread(target=end.wait, name="exporter", daemon=True)
    with caplog.at_level(logging.WARNING, "django_tasks_db"):
        thread.start()
        warn_of_threads(lambda: None)
        assert "exporter" not in caplog.text
        warn_of_threads(None)
        assert "exporter" in caplog.text
        end.set()
        thread.join()
        caplog.clear()
        warn_of_threads(None)
        assert "exporter" not in caplog.text
