"""What users read: conditions, status and events.

In comes everything that one turn knows. ``status.py`` and ``events.py`` are pure: they say what the
status is now, and which of its changes somebody should hear of. ``reporter.py`` writes both to the API
server, as seldom as that serves the reader.
"""
