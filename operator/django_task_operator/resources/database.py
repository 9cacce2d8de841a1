"""What a worker's pods get from the operator about the database: the URL, and the server's authority."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django_task_operator.spec import DatabaseEngine, ValueOrKey

if TYPE_CHECKING:
    from django_task_operator.spec import Database, Manifest

# docs/database.md documents these, for users' settings.
ROOT_CERT_FOLDER = "/etc/django-task-operator/database"
ROOT_CERT_FILE = "ca.crt"
ROOT_CERT = f"{ROOT_CERT_FOLDER}/{ROOT_CERT_FILE}"
# libpq takes the path from here by itself; for other drivers the settings read it.
# https://www.postgresql.org/docs/current/libpq-envars.html
ROOT_CERT_VARIABLES = ("PGSSLROOTCERT", "DATABASE_SSL_ROOT_CERT")

DEFAULT_PORTS = {DatabaseEngine.POSTGRESQL: "5432", DatabaseEngine.MYSQL: "3306"}

_VOLUME = "database-root-cert"


def environment(database: Database) -> list[Manifest]:
    """Build the variables by which the project's settings find the database."""
    variables: list[Manifest] = []
    if (ref := database.url_secret_ref) and database.env_name:
        variables.append({"name": database.env_name, **_from(ref.name, ref.key)})
    if (connection := database.connection) and connection.env_prefix:
        # Settings that read a port must not fail because it is missing.
        port = connection.port or ValueOrKey(value=DEFAULT_PORTS[connection.engine])
        for part, given in connection.model_copy(update={"port": port}).parts.items():
            value = _from(connection.secret_ref.name, given.key) if given.key else {"value": given.value}
            variables.append({"name": connection.env_prefix + part.upper(), **value})
    if database.ssl_root_cert_secret_ref:
        variables += [{"name": name, "value": ROOT_CERT} for name in ROOT_CERT_VARIABLES]
    return variables


def _from(secret: str, key: str) -> Manifest:
    return {"valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}


def volumes(database: Database) -> tuple[list[Manifest], list[Manifest]]:
    """Build the volumes of the pod, and where its container mounts them."""
    ref = database.ssl_root_cert_secret_ref
    if ref is None:
        return [], []
    # A mounted folder is updated when the Secret changes; a file mounted with subPath would not be.
    secret = {"secretName": ref.name, "items": [{"key": ref.key, "path": ROOT_CERT_FILE}]}
    mount = {"name": _VOLUME, "mountPath": ROOT_CERT_FOLDER, "readOnly": True}
    return [{"name": _VOLUME, "secret": secret}], [mount]
