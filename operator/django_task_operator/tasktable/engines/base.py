"""The interface of an engine: everything that the other modules need to know about a kind of server."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar

from django_task_operator.tasktable.errors import InvalidURL

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from django.db.backends.base.base import BaseDatabaseWrapper

    from django_task_operator.spec import DatabaseEngine
    from django_task_operator.tasktable.errors import DatabaseError

APPLICATION_NAME = "django-task-operator"

# What libpq and MySQL's drivers call the file of the authorities that vouch for the server.
_ROOT_CERTS = frozenset({"sslrootcert", "ssl_ca"})


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a database may take.

    Args:
        connect_seconds: to accept a connection.
        statement_seconds: to execute one statement, or to wait for a lock.
    """

    connect_seconds: float
    statement_seconds: float

    @property
    def silence_seconds(self) -> float:
        """How long a server may be silent: longer than it takes to cancel a statement itself."""
        return self.connect_seconds + self.statement_seconds


@dataclass(frozen=True, slots=True, repr=False)
class Place:
    """The decoded parts of a URL: there may be several hosts and as many ports, joined by commas."""

    host: str
    port: str
    name: str
    user: str
    password: str
    options: Mapping[str, str]

    def refuse_files(self, names: Collection[str]) -> None:
        """Refuse options that would make the operator read a file in its own pod.

        Raises:
            InvalidURL: one of the options ``names`` is given.
        """
        for name in self.options:
            if name.replace("-", "_").lower() in names:
                refused = f"{name} is not taken from a URL, because the operator would read its own files."
                instead = (
                    "Name the Secret that has the certificate in spec.database.sslRootCertSecretRef"
                    if name.replace("-", "_").lower() in _ROOT_CERTS
                    else "If your pods need it, give the operator its own URL in "
                    "spec.database.operatorUrlSecretRef"
                )
                raise InvalidURL(problem=f"{refused} {instead}")


class Engine(ABC):
    """One kind of database server, and its driver. It has no state.

    In addition to this interface, a driver's cursor must have ``mogrify(sql, params)``, which returns the
    statement's text with the parameters quoted in it, and must return times as ``datetime``.
    """

    name: ClassVar[DatabaseEngine]
    """What it is called in ``spec.database.connection.engine``."""

    scheme: ClassVar[str]
    """The scheme of a URL that is built from the parts of ``spec.database.connection``."""

    vendor: ClassVar[str]
    """Django's name of it: ``connection.vendor``."""

    backend: ClassVar[str]
    """Django's backend, as in ``DATABASES["default"]["ENGINE"]``."""

    schemes: ClassVar[frozenset[str]]
    """The URL schemes that stand for it."""

    clock: ClassVar[str]
    """SQL for the server's clock at the start of a statement, in the format of a DateTimeField."""

    instants_have_zones: ClassVar[bool]
    """Whether a DateTimeField's column stores an instant. Otherwise it stores the local time in the project's
    ``DATABASES["default"]["TIME_ZONE"]`` or ``TIME_ZONE``, which the operator does not know."""

    equal_names_are_one: ClassVar[bool]
    """Whether the column of queues compares names as Python does; MySQL's ignores case and accents."""

    @abstractmethod
    def read(self, place: Place) -> Place:
        """Complete the parts of a URL with those in its options, as the driver does in the pods.

        Raises:
            InvalidURL: it contains something that cannot be used.
        """

    @abstractmethod
    def options(
        self, given: Mapping[str, str], limits: Limits, session_settings: Sequence[str], root_cert: str
    ) -> dict[str, Any]:
        """Return ``OPTIONS`` for Django's backend.

        Args:
            given: the options in the URL; those that are not for the operator are left out.
            limits: the timeouts to set.
            session_settings: those of ``session_settings`` with which the connection starts.
            root_cert: the certificates, as PEM, of the only trusted authorities; empty if the worker names
                none. With them the server is verified, including its name, unless the URL asks for something
                else.
        """

    @abstractmethod
    def session_settings(self, limits: Limits) -> list[str]:
        """Return the settings for every statement, as ``name=value`` for ``SET LOCAL``.

        They are options of the connection, or are sent with each statement if a pooler shares the server's
        connections. Empty for a server without such settings: see ``session_statements``.
        """

    @abstractmethod
    def session_statements(self, connection: BaseDatabaseWrapper, limits: Limits) -> list[str]:
        """Return statements for a new session, for settings that the connection's options cannot express."""

    def prepare(  # noqa: B027  most engines need nothing
        self, connection: BaseDatabaseWrapper, root_cert: str
    ) -> None:
        """Modify Django's wrapper before it is first opened; ``root_cert`` is that of ``options``."""

    @abstractmethod
    def has_settings(self, connection: BaseDatabaseWrapper, limits: Limits) -> bool:
        """Whether a new session has the ``session_settings``: a pooler may silently drop them."""

    @abstractmethod
    def is_poolers_refusal(self, error: Exception) -> bool:
        """Whether an exception means that a pooler refuses the session settings of a connection."""

    @abstractmethod
    def explain(self, error: Exception) -> tuple[type[DatabaseError], str] | None:
        """Return what a driver's exception means, and its code for people; None for other exceptions.

        A statement that was cancelled because it took too long, and a server that does not answer, are both
        ``SampleTimedOut``. Unknown errors are ``DatabaseFailed``. The code contains no part of the driver's
        text.
        """

    @abstractmethod
    def unusable_indexes(self, connection: BaseDatabaseWrapper, table: str) -> frozenset[str]:
        """Return the names of existing indexes of ``table`` that the planner must not use."""

    @abstractmethod
    def socket_of(self, connection: Any) -> int | None:
        """Return the file descriptor of the driver's ``connection``; None if it has none now."""

    def queue_key(self, name: str) -> str:
        """Return a key that is equal for names that may be the same queue for the database."""
        return name if self.equal_names_are_one else name.casefold()

    def instant(self, value: datetime) -> datetime:
        """Return a time from the driver in UTC; one without a zone is assumed to be UTC, Django's default."""
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
