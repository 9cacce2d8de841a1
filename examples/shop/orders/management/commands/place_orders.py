from argparse import ArgumentParser
from datetime import timedelta
from typing import override

from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from orders.models import Order
from orders.outside import DECLINED_CARD, GOOD_CARD
from orders.tasks import enqueue_all


class Command(BaseCommand):
    help = "Place orders in one transaction: five tasks each, as if that many customers clicked at once."

    @override
    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("orders", type=int, help="How many orders.")
        parser.add_argument("--declined", type=int, default=0, help="How many of them have a declined card.")
        parser.add_argument(
            "--review-after", type=float, default=10, help="Seconds until the deferred task (default: 10)."
        )

    @override
    def handle(self, *, orders: int, declined: int, review_after: float, **_: object) -> None:
        if not 0 <= declined <= orders:
            raise CommandError("--declined must be between 0 and the number of orders")
        tasks = 0
        with transaction.atomic():
            for number in range(orders):
                order = Order.objects.create(
                    email=f"customer-{number}@shop.example",
                    article="teapot",
                    card_token=DECLINED_CARD if number < declined else GOOD_CARD,
                )
                tasks += len(enqueue_all(order, review_after=timedelta(seconds=review_after)))
        self.stdout.write(f"placed {orders} orders, {declined} of them with a declined card")
        self.stdout.write(f"enqueued {tasks} tasks")
