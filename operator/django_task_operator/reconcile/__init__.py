"""One loop per DjangoTaskWorker, and its turns.

In come the newest state of each worker (from ``cluster/handlers.py``) and wake-ups after an object or a
count has changed. A turn observes (``observer.py``), decides (``scaling/``), applies (``keepers/``) and
reports (``report/``), one after the other. Out comes when the next turn is due, and why.
"""
