"""A module that takes itself for a script."""

import sys

sys.exit("usage: ...")
