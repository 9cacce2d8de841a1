"""external.metrics.k8s.io for the HorizontalPodAutoscaler: the workers' task counts, over TLS.

In come the API server's requests, with the user that each is from, and the counts of the last samples. Out
come complete lists of values, or an error: never a part, because an autoscaler adds up what it finds.
``serving.py`` maintains the certificate and the APIService, ``listener.py`` is the server, and everything
else is pure.
"""
