"""The cluster's objects as frozen values, with only the facts that decisions need.

In come manifests from the API, read once by a watch (``cluster/cache.py``). Out come values whose fields
are named for their meaning. Pure: no request is made here.
"""
