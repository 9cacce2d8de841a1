"""Everything that talks to the API server, and nothing that decides.

In come requests: ``kube.py`` has a method for each, and ``transport.py`` sends them, with a timeout, and only
writes while this operator is the leader (``election.py``). Out come manifests, errors (``api_errors.py``) and
what watches report: ``cache.py`` stores the workers' objects, ``handlers.py`` (kopf) passes the workers on.
``secrets.py`` reads the database's URL.
"""
