"""TLS with a private certificate authority, between the operator and real servers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.authorities import Authority
from tests.contract.tasktable import DEFAULT
from tests.integration.databases import Server, create_database, running
from tests.waiting import PATIENCE_S

from django_task_operator.resources.database import ROOT_CERT_VARIABLES
from django_task_operator.tasktable import DatabaseError, DatabaseURL, TaskTable
from django_task_operator.tasktable.errors import TLSFailed

if TYPE_CHECKING:
    from collections.abc import Iterator

ARGUMENTS = {
    "postgres": ["-c", "ssl=on", "-c", "ssl_cert_file=/files/tls.crt", "-c", "ssl_key_file=/files/tls.key"],
    "mariadb": ["--ssl-cert=/files/tls.crt", "--ssl-key=/files/tls.key", "--require-secure-transport=ON"],
}
# What each calls a connection that verifies the authority, and one that verifies the name, too.
VERIFY_CA = {"postgres": "?sslmode=verify-ca", "mariadb": "?ssl-mode=VERIFY_CA"}
VERIFY_FULL = {"postgres": "?sslmode=verify-full", "mariadb": "?ssl-mode=VERIFY_IDENTITY"}
REQUIRE = {"postgres": "?sslmode=require", "mariadb": "?ssl-mode=REQUIRED"}
# Whether the very session that asks is encrypted.
IS_ENCRYPTED = {
    "postgres": "SELECT CASE WHEN ssl THEN 'yes' END FROM pg_stat_ssl WHERE pid = pg_backend_pid()",
    "mariadb": "SELECT IF(VARIABLE_VALUE <> '', 'yes', 'no') FROM information_schema.SESSION_STATUS"
    " WHERE VARIABLE_NAME = 'Ssl_cipher'",
}


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.make()


@pytest.fixture(scope="module", params=["postgres", "mariadb"])
def server(request: pytest.FixtureRequest, authority: Authority) -> Iterator[Server]:
    """A server whose certificate is for 127.0.0.1, without a name."""
    certificate, key = authority.sign("127.0.0.1")
    files = {"tls.crt": certificate, "tls.key": key}
    with running(request.param, *ARGUMENTS[request.param], files=files) as server:
        create_database(server, "shop_tls")
        yield server


def sample(url: str, root_cert: str) -> str:
    """Take a sample; return whether the connection was encrypted."""
    parsed = DatabaseURL.parse(url, root_cert)
    table = TaskTable(parsed)
    try:
        assert table.sample({DEFAULT: 1}).demands
        connection = table._connection
        assert connection
        with connection.cursor() as cursor:
            cursor.execute(IS_ENCRYPTED["postgres" if connection.vendor == "postgresql" else "mariadb"])
            return str(cursor.fetchone()[0])
    finally:
        table.close()


@pytest.mark.parametrize("query", [{"postgres": "", "mariadb": ""}, VERIFY_FULL, VERIFY_CA, REQUIRE])
def test_a_server_whose_certificate_is_of_the_authority(
    server: Server, authority: Authority, query: dict[str, str]
) -> None:
    assert sample(server.url("shop_tls", query=query[server.kind]), authority.pem) == "yes"


@pytest.mark.parametrize("query", [{"postgres": "", "mariadb": ""}, VERIFY_FULL, VERIFY_CA, REQUIRE])
def test_another_authority_is_no_authority(server: Server, query: dict[str, str]) -> None:
    with pytest.raises(TLSFailed):
        sample(server.url("shop_tls", query=query[server.kind]), Authority.make("another").pem)


def test_one_of_several_authorities_is_enough(server: Server, authority: Authority) -> None:
    """As during the replacement of one authority by the next."""
    both = Authority.make("the next").pem + authority.pem
    assert sample(server.url("shop_tls", query=VERIFY_FULL[server.kind]), both) == "yes"


def test_the_system_does_not_know_the_authority(server: Server) -> None:
    query = {**VERIFY_FULL, "postgres": "?sslmode=verify-full&sslrootcert=system"}
    with pytest.raises(TLSFailed):
        sample(server.url("shop_tls", query=query[server.kind]), "")


@pytest.mark.parametrize(
    ("query", "works"),
    [({"postgres": "", "mariadb": ""}, False), (VERIFY_FULL, False), (VERIFY_CA, True), (REQUIRE, True)],
)
def test_the_name_is_verified_unless_the_url_asks_for_less(
    server: Server, authority: Authority, query: dict[str, str], works: bool
) -> None:
    url = server.url("shop_tls", query=query[server.kind]).replace("127.0.0.1", "localhost")
    if works:
        assert sample(url, authority.pem) == "yes"
    else:
        with pytest.raises(TLSFailed):
            sample(url, authority.pem)


def test_no_file_is_left_behind(server: Server, authority: Authority) -> None:
    def open_files() -> set[str]:
        found = set()
        for descriptor in Path("/proc/self/fd").iterdir():
            try:
                found.add(str(descriptor.readlink()))
            except FileNotFoundError:
                continue  # of this very listing
        return {target for target in found if "root cert" in target}

    for root_cert in (authority.pem, Authority.make("another").pem):
        try:
            sample(server.url("shop_tls"), root_cert)
        except DatabaseError:
            assert root_cert != authority.pem
        assert open_files() == set()


# As docs/database.md tells users to write it; Django hands OPTIONS to the driver as they are.
PODS = {
    "postgres": "import os, psycopg; psycopg.connect(os.environ['DATABASE_URL'] + '?sslmode=verify-full')",
    "mariadb": """
import os, pymysql, urllib.parse
url = urllib.parse.urlsplit(os.environ["DATABASE_URL"])
pymysql.connect(
    host=url.hostname,
    port=url.port,
    user=url.username,
    password=urllib.parse.unquote(url.password),
    ssl={"ca": os.environ["DATABASE_SSL_ROOT_CERT"]},
)
""",
}


def test_what_the_pods_get_verifies_the_server(server: Server, authority: Authority, tmp_path: Path) -> None:
    def connects(root_cert: str) -> bool:
        path = tmp_path / "ca.crt"
        path.write_text(root_cert)
        variables = {name: str(path) for name in ROOT_CERT_VARIABLES}
        done = subprocess.run(
            [sys.executable, "-c", PODS[server.kind]],
            env={**os.environ, **variables, "DATABASE_URL": server.url("shop_tls")},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == 0 or "certificate verify failed" in done.stderr, done.stderr
        return done.returncode == 0

    assert connects(authority.pem)
    assert not connects(Authority.make("another").pem)
