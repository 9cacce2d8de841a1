"""external.metrics.k8s.io for the HorizontalPodAutoscaler: the figures of the workers, over TLS.

In come requests of the API server, who they are from, and the counts of the last samples. Out come whole
lists of values, or an error: never a part, because an autoscaler adds up what it finds. ``serving.py``
keeps the certificate and the APIService, ``listener.py`` is the server, and everything else is pure.
"""
