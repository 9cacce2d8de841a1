"""The words that users' alerts, dashboards and scripts rely on, each defined once.

Conditions and events have more reasons than these: those of a decision about the replicas
(``scaling.Reason``), of a pod that does not work (``observed.pods.PodTrouble``), and of errors, whose
reason is the name of their class (``errors.WorkerError``).
"""

from __future__ import annotations

from enum import StrEnum


class ConditionType(StrEnum):
    """The conditions of a DjangoTaskWorker, in the order of its status.

    The first three mean what kstatus says (https://github.com/kubernetes-sigs/cli-utils, pkg/kstatus). If
    Stalled and Reconciling are both True, the first of them counts there: nobody should wait for what has to
    be changed.
    """

    READY = "Ready"
    STALLED = "Stalled"
    RECONCILING = "Reconciling"
    SCALING_ACTIVE = "ScalingActive"
    DATABASE_REACHABLE = "DatabaseReachable"
    PAUSED = "Paused"


class ConditionReason(StrEnum):
    """Why a condition has its status, if the reason is not an error, a pod or a decision."""

    SAMPLED = "Sampled"
    NOT_SAMPLED_YET = "NotSampledYet"
    SAMPLE_SLOW = "SampleSlow"

    NOT_DECIDED_YET = "NotDecidedYet"
    QUEUE_SHARED = "QueueShared"
    QUEUE_UNSERVED = "QueueUnserved"
    AUTOSCALER_FAILING = "AutoscalerFailing"
    METRICS_API_OFF = "MetricsApiOff"
    METRICS_API_FOREIGN = "MetricsApiForeign"
    METRICS_API_UNREACHABLE = "MetricsApiUnreachable"

    PAUSED = "Paused"
    NOT_PAUSED = "NotPaused"

    NOT_STALLED = "NotStalled"
    PODS_REJECTED = "PodsRejected"
    ROLLOUT_OVERDUE = "RolloutOverdue"

    STARTING = "Starting"
    SCALING = "Scaling"
    ROLLING_OUT = "RollingOut"
    PODS_STARTING = "PodsStarting"
    SETTLED = "Settled"

    NO_REPLICAS_ASKED = "NoReplicasAsked"
    SCALED_TO_ZERO = "ScaledToZero"
    REPLICAS_READY = "ReplicasReady"


class EventReason(StrEnum):
    """The reasons of events that are not about a new reason of a condition."""

    SCALED_UP = "ScaledUp"
    SCALED_DOWN = "ScaledDown"
    DEPLOYMENT_RESTORED = "DeploymentRestored"
    DATABASE_URL_CHANGED = "DatabaseURLChanged"
    RUNTIME_UPGRADED = "RuntimeUpgraded"
    MIGRATION_STARTED = "MigrationStarted"
    TASK_FAILED = "TaskFailed"
    TASK_REQUEUED = "TaskRequeued"
    ORPHANS_NOT_SETTLED = "OrphansNotSettled"
    TASKS_ORPHANED = "TasksOrphaned"
    TASKS_STUCK = "TasksStuck"
    RECOVERED = "Recovered"
    DATABASE_REACHABLE = "DatabaseReachable"
    PAUSED = "Paused"
    RESUMED = "Resumed"


class StatusField(StrEnum):
    """The fields of a DjangoTaskWorker's status."""

    OBSERVED_GENERATION = "observedGeneration"
    REPLICAS = "replicas"
    READY_REPLICAS = "readyReplicas"
    DESIRED_REPLICAS = "desiredReplicas"
    SELECTOR = "selector"
    PENDING_TASKS = "pendingTasks"
    RUNNING_TASKS = "runningTasks"
    OLDEST_PENDING_SECONDS = "oldestPendingSeconds"
    ORPHANED_TASKS = "orphanedTasks"
    STUCK_TASKS = "stuckTasks"
    RUNTIME = "runtime"
    PENDING_RUNTIME = "pendingRuntime"
    LAST_SCALE_TIME = "lastScaleTime"
    LAST_SAMPLE_TIME = "lastSampleTime"
    CONDITIONS = "conditions"


class Metric(StrEnum):
    """The names of metrics, for Prometheus (where counters end in _total) and for an HPA."""

    PENDING_TASKS = "django_tasks_pending"
    RUNNING_TASKS = "django_tasks_running"
    DEMAND_TASKS = "django_tasks_demand"
    OLDEST_PENDING_SECONDS = "django_tasks_oldest_pending_seconds"
    QUEUE_PENDING_TASKS = "django_task_queue_pending_tasks"
    QUEUE_RUNNING_TASKS = "django_task_queue_running_tasks"
    QUEUE_OLDEST_PENDING_SECONDS = "django_task_queue_oldest_pending_seconds"
    MIN_REPLICAS = "django_task_worker_min_replicas"
    MAX_REPLICAS = "django_task_worker_max_replicas"
    DESIRED_REPLICAS = "django_task_worker_desired_replicas"
    READY_REPLICAS = "django_task_worker_ready_replicas"
    ORPHANED_TASKS = "django_task_worker_orphaned_tasks"
    STUCK_TASKS = "django_task_worker_stuck_tasks"
    ORPHANS = "django_task_worker_orphans"
    CONDITION = "django_task_worker_condition"
    DECISIONS = "django_task_worker_decisions"
    SCALINGS = "django_task_worker_scalings"
    SAMPLE_SECONDS = "django_task_operator_sample_seconds"
    SAMPLE_ERRORS = "django_task_operator_sample_errors"
    CONNECTED_DATABASES = "django_task_operator_connected_databases"
    TURNS = "django_task_operator_turns"
    TURN_SECONDS = "django_task_operator_turn_seconds"
    API_REQUESTS = "django_task_operator_api_requests"
    LEADER = "django_task_operator_leader"
    WATCHING = "django_task_operator_watching"
