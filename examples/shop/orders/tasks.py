"""What happens to an order after the customer's click, outside the request.

A task may be run again, for example after its worker was killed, so each task first checks whether its work
is already done.
"""

from datetime import timedelta

from django.tasks import TaskContext, TaskResult, task
from django.utils import timezone

from mails.tasks import ask_for_review, send_confirmation
from orders import outside
from orders.models import Order


def enqueue_all(order: Order, review_after: timedelta) -> list[TaskResult]:
    """Enqueue everything that an order needs. The request for a review is a deferred task."""
    return [
        take_payment.enqueue(order.pk),
        book_courier.enqueue(order.pk),
        send_confirmation.enqueue(order.pk),
        render_invoice.enqueue(order.pk),
        ask_for_review.using(run_after=timezone.now() + review_after).enqueue(order.pk),
    ]


@task(queue_name="priority", priority=50, takes_context=True)
def take_payment(context: TaskContext, order_id: int) -> str:
    """Charge the customer's card. The task fails if the bank declines it."""
    order = Order.objects.get(pk=order_id)
    if not order.receipt:
        # The task's id is the same in every attempt, so a customer cannot be charged twice.
        order.receipt = outside.charge(order.card_token, reference=context.task_result.id)
        order.save(update_fields=["receipt"])
    return order.receipt


@task(queue_name="priority", priority=20)
async def book_courier(order_id: int) -> str:
    order = await Order.objects.aget(pk=order_id)
    if not order.tracking:
        order.tracking = await outside.book_courier(f"order-{order.pk}")
        await order.asave(update_fields=["tracking"])
    return order.tracking


@task(priority=-10)
def render_invoice(order_id: int) -> None:
    """Render the invoice. This is slow and not urgent, so it has the lowest priority."""
    order = Order.objects.get(pk=order_id)
    if not order.invoice:
        order.invoice = outside.render_invoice([f"Invoice for {order.email}", str(order)])
        order.save(update_fields=["invoice"])
