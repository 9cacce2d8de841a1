"""The cluster's objects as frozen values: the few facts of each that decisions need.

In come manifests of the API, read once by a watch (``cluster/cache.py``). Out come values with names
of our own for what they mean. Pure: no request is made here.
"""
