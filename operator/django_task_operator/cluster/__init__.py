"""Everything that talks to the API server, and nothing that decides.

``kube.py`` has a method for each request. ``transport.py`` sends them: with a timeout, and writes only while
this operator is the leader (``election.py``). ``cache.py`` stores what watches report, ``handlers.py`` (kopf)
reports which workers exist, and ``secrets.py`` reads the database's URL.
"""
