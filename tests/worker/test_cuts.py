"""Five hundred connections that break, each at another point of claim, run and store: nothing comes of it.

PostgreSQL has three hundred of them, and MariaDB, where each has more to say, two hundred.
"""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from tests.databases import running_mariadb, running_postgres
from tests.waiting import eventually
from tests.worker.harness import Project
from tests.worker.proxy import TO_THE_END, Fault, How, Part, Proxy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.databases import Server

CUTS = {"postgresql": 300, "mysql": 200}
# Half-open and silent connections still count at the server.
CONNECTIONS = 400
# Enough to keep all slots at work.
READY = 400


@pytest.fixture(params=["postgres", "mariadb"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server of its own, because its connections are many."""
    if request.param == "postgres":
        running = running_postgres("-c", "fsync=off", "-c", f"max_connections={CONNECTIONS}")
    else:
        running = running_mariadb("--innodb-flush-log-at-trx-commit=0", f"--max-connections={CONNECTIONS}")
    with running as one:
        yield one


def cut(chance: random.Random) -> Fault:
    """Anywhere: connecting takes four to eight turns, a claim one (PostgreSQL) or five (MariaDB)."""
    return Fault(
        how=chance.choice(list(How)),
        turn=chance.randint(1, 30),
        part=chance.choice(list(Part)),
        after=chance.choice([0, chance.randint(1, 20), chance.randint(1, 400), TO_THE_END]),
        # Of a connection that is silent: until its server notices.
        seconds=0.3,
    )


def test_all_cuts(server: Server, tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    record = tmp_path / "record"
    record.touch()
    direct = Project(server.url())
    direct.migrate()
    total = 0
    cuts = CUTS[server.scheme]
    with Proxy(server.port) as proxy:
        proxy.faults = lambda _: cut(chance) if len(proxy.fired) < cuts else None
        through = Project(server.url().replace(f":{server.port}/", f":{proxy.port}/"))
        worker = through.worker("--processes=2", "--threads=4", "--interval=0.05", manage="hasty.py")

        def all_made() -> bool:
            nonlocal total
            if total - record.read_text().count("\n") < READY:
                direct.enqueue_each("count", [[str(record), total + number] for number in range(READY)])
                total += READY
            return len(proxy.fired) >= cuts or worker.process.poll() is not None

        try:
            eventually(all_made, "all cuts", within_s=1200)
            direct.all_finished(total)
            assert direct.statuses() == {"SUCCESSFUL": total}
            assert worker.terminate(60) == 0
        except AssertionError as error:
            error.add_note(f"seed {seed}, {len(proxy.fired)} cuts:\n{tail(worker.output)}")
            raise
        finally:
            worker.kill()
            direct.close()
    ran = Counter(int(line) for line in record.read_text().split())
    assert [number for number in range(total) if ran[number] != 1] == [], f"seed {seed}"
    # Of an outage every reason is right: "TLS failed", too.
    outage = ("The database ", "Django's system checks were skipped: no database ")
    said = "\n".join(line for line in worker.output.splitlines() if not line.startswith(outage))
    # Not "Traceback": Python writes one where PyMySQL leaves a socket open after a broken TLS handshake.
    for sign in ("Worker process", "state=FAILED", " failed"):
        assert sign not in said, tail(worker.output)


def tail(output: str) -> str:
    """What the worker said at the end, but for each task's beginning and end."""
    return "\n".join([line for line in output.splitlines() if not line.startswith("Task id=")][-100:])
