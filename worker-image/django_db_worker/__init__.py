"""``db_worker`` for the task table of django-tasks-db: processes, threads, health, and a clean end.

A worker is one supervisor, its processes, and in each process one or more slots:

    supervisor ── fork, signals ──> process 1 ──> slot 1.1 ──> task_store ──> database
        │  ^                                 └──> slot 1.2 ──> task_store ──> database
        │  └───────── status_board <── every slot writes what it is doing
        └── fork, signals ──> process 2 ──> ...

A slot claims a task, runs it and stores its result, over and over, in a thread of its own with a
connection of its own. Slots never talk to one another, and only the supervisor starts and ends processes.
A worker of one slot without a health port or a limit has no supervisor: the command is the slot's process.

    __main__            the launcher: runs the commands of this folder in a project that knows nothing of it
    management/         the commands: arguments in; a worker, a clean-up or the table's indexes out
    options             the command line as one value, refused where it cannot work
    supervisor          starts, watches, replaces, ends processes; answers the health port; never connects
    child               one process, as the supervisor sees it
    process             one process: its signals, its slots, how it ends
    slot                the loop: claim a row, run its task, store the result, send signals
    outcome             what is stored about the end of a task, in a form that the database accepts
    sessions            keeps what a task does to its database sessions from the next task
    task_store          what a slot does with the task table, through lost connections
    reading             reads rows, also those that Django cannot read
    claim               the SQL of claiming and storing, for each database
    passed_over         rows that nobody can claim
    next_row            which row is claimed next, at a cost that other rows do not add to
    next_due            when the next deferred task is due
    indexes             the task table's indexes: what they are, and whether they are there
    setup               creates and removes them, while the table is in use
    migrations/         the same as a migration, for projects that install the app
    wakes               the idle slots of a process, and what wakes them
    wake_listener       the thread that listens for announcements of new tasks, on a connection of its own
    wake_rhythm         when a process answers to announcements, and when it looks without one
    wake_trigger        the trigger that announces new tasks: its SQL, and what both sides agree on
    wake_setup          creates and removes it
    database            the slot's connection, kept open and made anew
    trouble             what errors of the database mean
    refusal             why PostgreSQL refuses a connection, in any language
    watchdog            ends statements that get no answer
    status_board        what every slot is doing, in memory shared by all processes
    quota               --max-tasks: when a process is replaced, and only one at a time
    stop                how a slot learns that it should end
    after_fork          what the project starts in each process: DB_WORKER_AFTER_FORK
    memory_watch        replaces processes that grow: --max-memory-per-process
    memory              how much memory a process uses, and what to do about it
    shortage            records which tasks use the memory when a container is about to run out of it
    time_watch          ends tasks that run for too long: --task-timeout
    overdue             which tasks these are, and how long the process waits for others
    stacks              where the threads of another process are
    stuck               for how long a slot may do something other than run a task
    surroundings        what tasks change in their process, and how it is restored
    listeners           which signals the project listens to
    health, metrics     /healthz, /readyz and /metrics
    errors              what ends a worker or a task, in words for the user
"""

__version__ = "0.1.0"
