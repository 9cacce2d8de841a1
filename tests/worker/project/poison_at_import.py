"""A module of tasks that cannot be imported without an environment variable, like many settings."""

import os

PASSWORD = os.environ["A_VARIABLE_THAT_IS_MISSING"]
