import time

from django.tasks import task


@task
def bake(loaves: int) -> str:
    return f"{loaves} loaves"


@task
def burn() -> None:
    raise ValueError("burnt by design")


@task
def rise(loaves: int) -> int:
    """Wait until ``count`` tasks of this kind have started, so that all of them run at once."""
    from django_tasks_db.models import DBTaskResult  # noqa: PLC0415 - the test reads the tasks without a project

    kind = DBTaskResult.objects.filter(task_path="bakery.tasks.rise")
    for _ in range(1800):
        if kind.exclude(status="READY").count() >= loaves:
            return loaves
        time.sleep(0.1)
    raise TimeoutError(f"{loaves} loaves never rose together")


@task(priority=10)
def serve() -> str:
    return "served first"


@task(queue_name="reports")
def count_up() -> int:
    return 42
