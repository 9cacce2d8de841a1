"""One loop per DjangoTaskWorker, and the turns that it takes.

In come the newest state of each worker (from ``cluster/handlers.py``) and wake-ups: an object or a
count changed. A turn observes (``observer.py``), decides (``scaling/``), applies (``keepers/``) and reports
(``report/``), one after the other. Out comes when the next turn is due, and why.
"""
