"""Runs and autoscales Django's task workers on Kubernetes."""
