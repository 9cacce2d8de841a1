"""As docs/tokens.md describes it, with a file instead of a cloud's SDK."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from django.db import OperationalError
from django.db.backends.postgresql import base


class DatabaseWrapper(base.DatabaseWrapper):
    """Reads the token anew for each connection."""

    def get_connection_params(self) -> dict[str, Any]:
        params = super().get_connection_params()
        try:
            params["password"] = Path(os.environ["TOKEN_FILE"]).read_text("utf-8")
        except OSError as error:
            raise OperationalError("no token") from error
        return params
