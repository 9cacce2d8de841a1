"""One loop per DjangoTaskWorker, and the turns that it takes.

In come the newest state of each worker (from ``cluster/handlers.py``) and wake-ups: an object or a
count changed. A turn observes, decides, applies (``keepers/``) and reports (``report/``). Out comes the
number of seconds after which the next turn is due.
"""
