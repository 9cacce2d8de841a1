"""Everything that talks to the API server, and nothing that decides.

All requests go through ``kube.py``: with a timeout, and writes only while this operator is the leader
(``election.py``). ``cache.py`` stores what watches report, ``handlers.py`` (kopf) reports which workers
exist, and ``secrets.py`` reads the database's URL.
"""
