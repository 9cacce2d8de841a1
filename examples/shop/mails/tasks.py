from django.core.mail import send_mail
from django.db import transaction
from django.tasks import task

from mails.models import SentMail
from orders.models import Order


@task(priority=10)
def send_confirmation(order_id: int) -> bool:
    """Tell the customer that the order was received. Returns whether a mail was sent."""
    order = Order.objects.get(pk=order_id)
    return _send_once(order, "confirmation", f"We have your order of {order.quantity} {order.article}.")


@task
def ask_for_review(order_id: int) -> bool:
    """Ask a customer who has paid for a review. Returns whether a mail was sent."""
    order = Order.objects.get(pk=order_id)
    if not order.receipt:
        return False
    return _send_once(order, "review", f"How do you like your {order.article}?")


def _send_once(order: Order, kind: str, text: str) -> bool:
    # One transaction: if the mail server refuses, the row is rolled back and the task can be run again.
    with transaction.atomic():
        _, is_new = SentMail.objects.get_or_create(order=order, kind=kind)
        if is_new:
            send_mail(f"Your order {order.pk}", text, None, [order.email])
    return is_new
