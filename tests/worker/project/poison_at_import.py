"""A module of tasks that cannot be imported where a variable is missing, as so many settings are read."""

import os

PASSWORD = os.environ["A_VARIABLE_THAT_IS_MISSING"]
