"""The interface of an engine: all that the rest of the task table needs to know of a server's kind."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar

from django_task_operator.tasktable.errors import InvalidURL

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from django.db.backends.base.base import BaseDatabaseWrapper

    from django_task_operator.tasktable.errors import DatabaseError

APPLICATION_NAME = "django-task-operator"

# What libpq and MySQL's drivers call the file of the authorities that vouch for the server.
_ROOT_CERTS = frozenset({"sslrootcert", "ssl_ca"})


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a database may take.

    Args:
        connect_seconds: to take a connection.
        statement_seconds: to work, or to wait for a lock, on one statement.
    """

    connect_seconds: float
    statement_seconds: float

    @property
    def silence_seconds(self) -> float:
        """After which a server that says nothing is given up, later than it would end a statement itself."""
        return self.connect_seconds + self.statement_seconds


@dataclass(frozen=True, slots=True, repr=False)
class Place:
    """What a URL says, its parts decoded: the host may be several, with as many ports, joined by commas."""

    host: str
    port: str
    name: str
    user: str
    password: str
    options: Mapping[str, str]

    def refuse_files(self, names: Collection[str]) -> None:
        """Have no file read in the operator's pod because a tenant's URL names it.

        Raises:
            InvalidURL: one of the options ``names`` is given.
        """
        for name in self.options:
            if name.replace("-", "_").lower() in names:
                refused = f"{name} is not taken from a URL, because the operator would read its own files."
                instead = (
                    "Name the Secret that has the certificate in spec.database.sslRootCertSecretRef"
                    if name.replace("-", "_").lower() in _ROOT_CERTS
                    else "Where your pods need it, give the operator a URL of its own in "
                    "spec.database.operatorUrlSecretRef"
                )
                raise InvalidURL(problem=f"{refused} {instead}")


class Engine(ABC):
    """One kind of database server, and the driver that speaks to it. It has no state.

    Beside what is asked for here, a driver's cursor must have ``mogrify(sql, params)``, which is the
    statement as text with the parameters quoted in it, and give instants as ``datetime``.
    """

    vendor: ClassVar[str]
    """Django's name of it: ``connection.vendor``."""

    backend: ClassVar[str]
    """Django's backend, as in ``DATABASES["default"]["ENGINE"]``."""

    schemes: ClassVar[frozenset[str]]
    """The schemes of a URL that mean it."""

    clock: ClassVar[str]
    """SQL for the server's clock at the start of a statement, as a DateTimeField stores an instant."""

    instants_have_zones: ClassVar[bool]
    """Whether a DateTimeField's column stores an instant; else it is a wall clock's reading in the time zone
    of the project's ``DATABASES["default"]["TIME_ZONE"]`` or ``TIME_ZONE``, which nobody tells."""

    equal_names_are_one: ClassVar[bool]
    """Whether the column of queues compares names as Python does; MySQL's ignores case and accents."""

    @abstractmethod
    def read(self, place: Place) -> Place:
        """Complete what a URL says by what its options say, as the driver does for the pods.

        Raises:
            InvalidURL: it says something that cannot be used.
        """

    @abstractmethod
    def options(
        self, given: Mapping[str, str], limits: Limits, session_settings: Sequence[str], root_cert: str
    ) -> dict[str, Any]:
        """``OPTIONS`` of Django's backend.

        Args:
            given: the options that the URL has; those that are not for the operator are left out.
            limits: the time-outs to set.
            session_settings: of ``session_settings``, those that the connection is to begin with.
            root_cert: the certificates, as PEM, of the only authorities that may vouch for the server; empty
                where the worker names none. With them the server is verified, name included, where the URL
                does not ask for something else.
        """

    @abstractmethod
    def session_settings(self, limits: Limits) -> list[str]:
        """What every statement is to run under, as ``name=value`` for ``SET LOCAL``.

        They are options of the connection, or go with each statement where a pooler hands the server's
        connections around. Empty for a server that has no such thing: see ``session_statements``.
        """

    @abstractmethod
    def session_statements(self, connection: BaseDatabaseWrapper, limits: Limits) -> list[str]:
        """What a new session is told where the connection's own options cannot say it."""

    def prepare(  # noqa: B027  most engines need nothing
        self, connection: BaseDatabaseWrapper, root_cert: str
    ) -> None:
        """Change Django's wrapper before it is first opened; ``root_cert`` is that of ``options``."""

    @abstractmethod
    def has_settings(self, connection: BaseDatabaseWrapper, limits: Limits) -> bool:
        """Whether a new session runs under ``session_settings``: a pooler may drop them without a word."""

    @abstractmethod
    def is_poolers_refusal(self, error: Exception) -> bool:
        """Whether a pooler refuses the settings of a session that a connection came with."""

    @abstractmethod
    def explain(self, error: Exception) -> tuple[type[DatabaseError], str] | None:
        """What an exception of the driver means, and its code for people; None if it is no such exception.

        A statement that was ended because it took too long, and silence where an answer was expected, are
        both ``SampleTimedOut``. What is not known is ``DatabaseFailed``. The code holds nothing of the
        driver's text.
        """

    @abstractmethod
    def unusable_indexes(self, connection: BaseDatabaseWrapper, table: str) -> frozenset[str]:
        """Names of indexes of ``table`` that are there and that the planner may not use."""

    @abstractmethod
    def socket_of(self, connection: Any) -> int | None:
        """The file descriptor of the driver's ``connection``; None if it has none now."""

    def queue_key(self, name: str) -> str:
        """The same for names of queues that may be one queue to the database."""
        return name if self.equal_names_are_one else name.casefold()

    def instant(self, value: datetime) -> datetime:
        """An instant that the driver gave, in UTC; without a zone it is taken for UTC, Django's default."""
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
