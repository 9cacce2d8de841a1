"""The worker is a separate package, which the operator's environment does not install."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3] / "worker-image"))
