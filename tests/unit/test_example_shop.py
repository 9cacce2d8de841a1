"""The example's own tests, in a separate process, because it is another Django project."""

import os
import subprocess
import sys
from pathlib import Path

SHOP = Path(__file__).parents[2] / "examples" / "shop"


def manage(*arguments: str) -> None:
    environment = {"PATH": os.environ["PATH"], "SECRET_KEY": "tests", "DATABASE_URL": "sqlite://:memory:"}
    done = subprocess.run(
        [sys.executable, "-Werror", "manage.py", *arguments],
        cwd=SHOP,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_shop_works() -> None:
    manage("test", "--verbosity=1")


def test_its_migrations_are_complete() -> None:
    manage("makemigrations", "--check", "--dry-run")
