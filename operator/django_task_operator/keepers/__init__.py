"""Whatever a turn has decided is made so here, one keeper for each thing that a worker owns.

In come a parsed worker, the objects as they were observed, and decisions. Each keeper asks the API
server (or the task table) only for what differs, and remembers what was refused. Out come what stands
in the way, as errors that are values, and events to report.
"""
