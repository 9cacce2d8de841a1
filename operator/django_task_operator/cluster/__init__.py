"""Everything that speaks to the API server, and nothing that decides.

``kube.py`` is the only door: requests with a time-out, and writes only while this operator leads
(``election.py``). ``cache.py`` keeps what watches tell, ``handlers.py`` (kopf) tells which workers
there are, and ``secrets.py`` reads the database's URL.
"""
