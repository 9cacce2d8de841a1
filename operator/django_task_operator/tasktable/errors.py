"""What can go wrong with a worker's database, in words for the person who has to fix it.

The messages never contain the driver's text, which quotes hosts, users and sometimes whole URLs.
"""

from __future__ import annotations

from django_task_operator.errors import TransientError, UserError


class InvalidURL(UserError):
    template = "The database URL cannot be used: {problem}. It has the form postgres://USER:PASSWORD@HOST:5432/NAME or mysql://USER:PASSWORD@HOST:3306/NAME, with special characters in the password percent-encoded."


class InvalidConnection(UserError):
    template = "The database's {part} cannot be used: {problem}. Correct spec.database.connection.{part}, or the Secret's key that it names."


class InvalidRootCert(UserError):
    template = "Secret {secret} has no certificate in its key {key}, which spec.database.sslRootCertSecretRef names. Put the certificate of the authority that signs the database's there, in PEM form: from -----BEGIN CERTIFICATE----- to -----END CERTIFICATE-----."


class UnsupportedDatabase(UserError):
    template = "The database URL names {database}, which the operator does not support: {why}. Use PostgreSQL, MySQL or MariaDB."


class TokenRefused(UserError):
    template = (
        "The operator would send a token to the database, because its URL has no password, but {problem}."
    )


class DatabaseError(TransientError):
    """A sample failed. It is retried with a growing delay, whether or not a person has to fix something."""


class HostUnknown(DatabaseError):
    template = "The name of the database's host cannot be resolved from the operator's pod. Use a full name, as in db.NAMESPACE.svc; the operator runs in another namespace than the worker."


class HostIsLoopback(DatabaseError):
    template = "The URL's host is localhost or a loopback address, which for the operator is its own pod, without a database. If the pods connect through a sidecar proxy (Cloud SQL, RDS), give the operator its own URL in spec.database.operatorUrlSecretRef."


class HostNotAllowed(DatabaseError):
    template = "The operator may not connect to the address of the database's host: databaseNetworks in the operator's chart excludes it. Use another host, or ask whoever installed the operator."


class ConnectionRefused(DatabaseError):
    template = "The database's host refuses connections on this port. Is the database running, and is the port right?"


class ConnectionTimedOut(DatabaseError):
    template = "The database's host did not answer in time. Does a NetworkPolicy or a firewall let the operator's pod reach it?"


class ConnectionLost(DatabaseError):
    template = "The database closed the connection, or is starting up or shutting down."


class TLSFailed(DatabaseError):
    template = "The TLS handshake with the database failed. Check sslmode in the URL. The operator verifies certificates against the authority in spec.database.sslRootCertSecretRef, or without one against those in its image; PostgreSQL needs sslrootcert=system for that."


class AuthenticationFailed(DatabaseError):
    template = "The database refuses the user or the password of the URL, or connections from the operator's address. Correct the Secret that spec.database names, or let the database accept the operator's address."


class TokenFailed(DatabaseError):
    template = "The command {command}, which gets the operator's password for the database's host, failed: {problem}. It is named in the file of the operator's option --database-tokens: ask whoever installed the operator."


class DatabaseMissing(DatabaseError):
    template = "The server has no database of the URL's name. Create it, or change the URL."


class TableMissing(DatabaseError):
    template = "The database has no task table: it is not migrated. Run manage.py migrate with django_tasks_db in INSTALLED_APPS."

    database_answers = True


class TableOutdated(DatabaseError):
    template = "The task table lacks a column that is needed. Upgrade django-tasks-db to 0.13 or newer and run manage.py migrate."

    database_answers = True


class PermissionDenied(DatabaseError):
    template = (
        "The URL's user may not read the task table. Grant it SELECT on django_tasks_database_dbtaskresult."
    )

    database_answers = True


class SampleTimedOut(DatabaseError):
    template = "Counting the tasks took longer than {seconds:g} s. The index in docs/database.md reduces that to milliseconds; a lock on the table may also be the cause."

    database_answers = True


class DatabaseReadOnly(DatabaseError):
    template = "The database is read-only: it is a standby, or was made read-only. After a failover the URL's host must lead to the new primary; if the URL names several hosts, add target_session_attrs=read-write."


class StatementConflict(DatabaseError):
    template = "The database cancelled the statement because of a deadlock, or because a standby has to catch up. The operator retries it."

    database_answers = True


class TooManyConnections(DatabaseError):
    template = "The database has no connection left for this user. Raise its limit, or put a connection pooler in front of it."


class DatabaseFailed(DatabaseError):
    template = "The database failed with {code}. Its own log says more."
