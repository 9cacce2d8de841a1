"""Applies what a turn has decided, with one keeper for each kind of thing that a worker owns.

In come a parsed worker, the observed objects, and decisions. Each keeper sends requests to the API server
(or the task table) only for differences, and remembers refusals. Out come errors, as values, and events to
report.
"""
