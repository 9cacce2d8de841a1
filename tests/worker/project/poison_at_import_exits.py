"""A module that exits when it is imported, as scripts do."""

import sys

sys.exit("usage: ...")
