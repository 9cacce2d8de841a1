"""Builds the CronJob that prunes a worker's finished results."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django_task_operator.resources import runtime
from django_task_operator.resources.job import build_job_spec
from django_task_operator.resources.labels import CLEANUP_LABEL
from django_task_operator.resources.metadata import object_metadata

if TYPE_CHECKING:
    from django_task_operator.resources.runtime import RuntimeSource
    from django_task_operator.spec import Manifest, Worker

# A run that is not over by then gives way; the next one goes on, as every batch is a transaction of its own.
DEADLINE_SECONDS = 3600
# After an outage of the cluster, a run that was missed is made up for so long.
STARTING_DEADLINE_SECONDS = 600


def build_cleanup(worker: Worker, source: RuntimeSource) -> Manifest:
    """Build the CronJob; what it makes does not count as the worker's pods."""
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": object_metadata(worker, f"{worker.key.name}-cleanup"),
        "spec": {
            "schedule": worker.spec.cleanup.schedule,
            "concurrencyPolicy": "Forbid",
            "startingDeadlineSeconds": STARTING_DEADLINE_SECONDS,
            "successfulJobsHistoryLimit": 1,
            "failedJobsHistoryLimit": 1,
            "jobTemplate": {
                "spec": build_job_spec(
                    worker,
                    source,
                    command=runtime.cleanup_command(worker.spec),
                    label=CLEANUP_LABEL,
                    component="task-cleanup",
                    deadline_seconds=DEADLINE_SECONDS,
                )
            },
        },
    }
