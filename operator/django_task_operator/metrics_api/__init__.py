"""external.metrics.k8s.io for the HorizontalPodAutoscaler: the figures of the workers, over TLS."""
