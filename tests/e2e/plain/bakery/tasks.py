import time

from django.tasks import task


@task
def bake(loaves: int) -> str:
    return f"{loaves} loaves"


@task
def burn() -> None:
    raise ValueError("burnt by design")


@task
def rise(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


@task(priority=10)
def serve() -> str:
    return "served first"


@task(queue_name="reports")
def count_up() -> int:
    return 42
