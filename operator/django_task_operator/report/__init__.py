"""What users read: conditions, status and events.

In comes everything that one turn knows. ``status.py`` and ``events.py`` are pure: they say what the
status is now, and which of its changes are worth an event. ``reporter.py`` writes both to the API
server, no more often than is useful to the reader.
"""
