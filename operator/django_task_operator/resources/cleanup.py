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

# A run is stopped after this long; the next one continues, because every batch is its own transaction.
DEADLINE_SECONDS = 3600
# How late a run may start that was missed during an outage of the cluster.
STARTING_DEADLINE_SECONDS = 600


def build_cleanup(worker: Worker, source: RuntimeSource) -> Manifest:
    """Build the CronJob; its pods do not count as pods of the worker."""
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
