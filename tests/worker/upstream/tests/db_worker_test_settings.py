"""For the workers that upstream's tests start: they work on the test database."""

from tests.settings import *  # noqa: F403
from tests.settings import DATABASES, OF_THE_WORKER

DATABASES["default"]["NAME"] = DATABASES["default"]["TEST"]["NAME"]
INSTALLED_APPS = OF_THE_WORKER
