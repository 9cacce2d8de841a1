"""A DjangoTaskWorker as frozen, typed values: parsed once, here, and trusted everywhere else.

The API server has already validated and defaulted what it stores (``crds/``). Only the CRD defines
defaults (``crd.py`` fills them in): a field with a default has none here, and an optional one is empty or
None.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from django_task_operator.crd import with_defaults
from django_task_operator.errors import InvalidSpec

GROUP = "djangotasks.dev"
VERSION = "v1alpha1"
KIND = "DjangoTaskWorker"
PLURAL = "djangotaskworkers"

TASKS_PER_SLOT = 10

type Manifest = dict[str, Any]


class Driver(StrEnum):
    """Who decides the number of replicas: ``spec.scaling.driver``."""

    OPERATOR = "Operator"
    HPA = "HPA"
    EXTERNAL = "External"


class DatabaseEngine(StrEnum):
    """A kind of database server that can be given in parts: ``spec.database.connection.engine``."""

    POSTGRESQL = "PostgreSQL"
    MYSQL = "MySQL"


class UrlChangePolicy(StrEnum):
    """What happens to the pods when the database's URL changes: ``spec.database.urlChangePolicy``."""

    ROLLOUT = "Rollout"
    IGNORE = "Ignore"


class DatabaseSetup(StrEnum):
    """Who sets the task table up for our queries, beside ``migrate``: ``spec.database.setup``."""

    MANAGED = "Managed"


class OrphanPolicy(StrEnum):
    """What happens to tasks whose pod is gone: ``spec.orphans.policy``."""

    FAIL = "Fail"
    REQUEUE = "Requeue"
    IGNORE = "Ignore"


class MigrationPolicy(StrEnum):
    """When ``migrate`` is run: ``spec.migrations.policy``."""

    NEVER = "Never"
    BEFORE_ROLLOUT = "BeforeRollout"


class Runtime(StrEnum):
    """Where the pods' ``db_worker`` comes from: ``spec.runtime``."""

    INJECTED = "Injected"
    IMAGE = "Image"
    STOCK = "Stock"


class RuntimeUpgrade(StrEnum):
    """When running pods get another injected runtime: ``spec.runtimeUpgrade``."""

    ON_NEXT_ROLLOUT = "OnNextRollout"
    STAGED = "Staged"


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True)


class SecretKeyRef(_Value):
    """One key of a Secret in the worker's own namespace."""

    name: Annotated[str, Field(min_length=1)]
    key: str


class SecretRef(_Value):
    """A Secret in the worker's own namespace."""

    name: Annotated[str, Field(min_length=1)]


class KeyOfSecret(_Value):
    """A key of the Secret that ``Connection`` names."""

    key: str


class ValueOrKey(_Value):
    """A value, or the key of the Secret that contains it."""

    value: str | None = None
    key: str | None = None


class Connection(_Value):
    """Where the task table is, in separate parts; the pods' variables begin with ``env_prefix``."""

    engine: DatabaseEngine
    secret_ref: SecretRef
    host: ValueOrKey
    port: ValueOrKey | None = None
    name: ValueOrKey
    user: ValueOrKey
    password: KeyOfSecret
    options: dict[str, str] = Field(default_factory=dict)
    env_prefix: str

    @property
    def parts(self) -> dict[str, ValueOrKey]:
        """Return all parts that are given, by name."""
        port = {"port": self.port} if self.port else {}
        password = ValueOrKey(key=self.password.key)
        return {"host": self.host, **port, "name": self.name, "user": self.user, "password": password}


class Database(_Value):
    """Where the task table is, and which environment variables pass that to the pods."""

    url_secret_ref: SecretKeyRef | None = None
    env_name: str
    connection: Connection | None = None
    ssl_root_cert_secret_ref: SecretKeyRef | None = None
    operator_url_secret_ref: SecretKeyRef | None = None
    url_change_policy: UrlChangePolicy
    # Without a default in the definition: one would change the hash of every migration.
    setup: DatabaseSetup | None = None

    @property
    def replaces_pods(self) -> bool:
        """Whether pods are replaced when the URL has changed: pods that do not get it need not be."""
        named = self.connection.env_prefix if self.connection else self.env_name
        return self.url_change_policy is UrlChangePolicy.ROLLOUT and bool(named)

    @property
    def secret(self) -> str:
        """The Secret from which the pods know the database."""
        ref = self.url_secret_ref or (self.connection and self.connection.secret_ref)
        return ref.name if ref else ""


class Scaling(_Value):
    """How the number of replicas follows the tasks."""

    driver: Driver
    min_replicas: Annotated[int, Field(ge=0)]
    max_replicas: Annotated[int, Field(ge=1)]
    tasks_per_replica: Annotated[int, Field(ge=1)] | None = None
    target_latency_seconds: Annotated[float, Field(ge=0)]
    poll_interval_seconds: Annotated[float, Field(ge=0.2)]
    scale_down_delay_seconds: Annotated[float, Field(ge=0)]
    behavior: Manifest = Field(default_factory=dict)


class Orphans(_Value):
    """What happens to rows that stay RUNNING after the pod that ran them is gone."""

    policy: OrphanPolicy
    grace_seconds: Annotated[float, Field(ge=0)]
    max_requeues: Annotated[int, Field(ge=0)]


class Prodserver(_Value):
    """A worker entry of the project's ``PRODUCTION_PROCESSES`` (django-prodserver)."""

    process: Annotated[str, Field(min_length=1)]


class Migrations(_Value):
    """Whether ``migrate`` runs before the pods of a new image start."""

    policy: MigrationPolicy


class Cleanup(_Value):
    """When finished results are pruned; without days, the project's settings say after how many days."""

    schedule: str
    older_than_days: Annotated[int, Field(ge=0)] | None = None


class PodTemplate(_Value):
    """What the user merges over the pod template that the operator builds."""

    metadata: Manifest = Field(default_factory=dict)
    spec: Manifest = Field(default_factory=dict)


class WorkerSpec(_Value):
    """``spec`` of a DjangoTaskWorker; the fields are described in ``docs/reference.md``."""

    image: Annotated[str, Field(min_length=1)]
    image_pull_policy: str
    image_pull_secrets: tuple[Manifest, ...] = ()
    manage_py: tuple[str, ...]
    working_dir: str | None = None
    queues: Annotated[tuple[str, ...], Field(min_length=1)]
    exclude_queues: tuple[str, ...]
    processes: Annotated[int, Field(ge=1)]
    threads: Annotated[int, Field(ge=1)]
    prodserver: Prodserver | None = None
    runtime: Runtime
    runtime_upgrade: RuntimeUpgrade
    backend: str
    verbosity: int
    interval_seconds: float
    max_tasks: int
    task_timeout_seconds: int
    max_memory_per_process: str
    env: tuple[Manifest, ...] = ()
    env_from: tuple[Manifest, ...] = ()
    resources: Manifest = Field(default_factory=dict)
    database: Database
    replicas: Annotated[int, Field(ge=0)] | None = None
    scaling: Scaling
    orphans: Orphans
    stuck_after_seconds: Annotated[float, Field(ge=0)]
    migrations: Migrations
    cleanup: Cleanup
    termination_grace_period_seconds: int
    paused: bool
    pod_template: PodTemplate = Field(default_factory=PodTemplate)

    @property
    def tasks_per_replica(self) -> int:
        """The number of tasks per pod: by default ten for each task that it can run at a time."""
        slots = self.processes * self.threads
        return self.scaling.tasks_per_replica or TASKS_PER_SLOT * slots


class Key(_Value):
    """The namespace and name of one DjangoTaskWorker."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class Worker(_Value):
    """A DjangoTaskWorker: who it is, and what it wants."""

    key: Key
    uid: str
    generation: int
    spec: WorkerSpec

    @classmethod
    def parse(cls, manifest: Manifest) -> Self:
        """Read an object of the API.

        Raises:
            InvalidSpec: a field is missing or has a value that is not allowed.
        """
        metadata = manifest["metadata"]
        try:
            spec = WorkerSpec.model_validate(with_defaults(manifest.get("spec") or {}))
        except ValidationError as invalid:
            first = invalid.errors(include_url=False, include_input=False)[0]
            field = ".".join(["spec", *map(str, first["loc"])])
            raise InvalidSpec(field=field, problem=first["msg"]) from None
        return cls(key=key_of(manifest), uid=metadata["uid"], generation=metadata["generation"], spec=spec)


def key_of(manifest: Manifest) -> Key:
    """Return the key of a DjangoTaskWorker object."""
    return Key(namespace=manifest["metadata"]["namespace"], name=manifest["metadata"]["name"])
