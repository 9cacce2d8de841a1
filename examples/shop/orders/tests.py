"""The tests run the tasks with the production worker, with --batch: until none is due."""

from datetime import timedelta

from django.core import mail
from django.core.management import call_command
from django.tasks import TaskResultStatus
from django.test import TestCase, override_settings
from django.utils import timezone
from django_tasks_db.models import DBTaskResult

from mails.models import SentMail
from orders.management.commands.watch_tasks import count_tasks
from orders.models import Order
from orders.outside import DECLINED_CARD, GOOD_CARD


@override_settings(OUTSIDE_WORLD_PACE=0)
class PlacingOrders(TestCase):
    def order(self, card_token: str = GOOD_CARD) -> Order:
        form = {"email": "ada@shop.example", "article": "teapot", "quantity": 2, "card_token": card_token}
        response = self.client.post("/", form, headers={"host": "localhost"})
        order = Order.objects.latest("pk")
        self.assertRedirects(response, f"/orders/{order.pk}/")
        return order

    def work(self, queue: str) -> None:
        call_command("db_worker", queue_name=queue, batch=True, startup_delay=False, verbosity=0)

    def test_an_order_enqueues_its_tasks_and_the_workers_do_them(self) -> None:
        order = self.order()
        self.assertEqual(
            count_tasks(), {"pending": 4, "deferred": 1, "running": 0, "successful": 0, "failed": 0}
        )
        self.work("priority")
        self.work("default")
        order.refresh_from_db()
        self.assertTrue(order.receipt)
        self.assertTrue(order.tracking)
        self.assertIn("2 teapot", order.invoice)
        self.assertEqual([message.to for message in mail.outbox], [["ada@shop.example"]])
        self.assertEqual(
            count_tasks(), {"pending": 0, "deferred": 1, "running": 0, "successful": 4, "failed": 0}
        )

    def test_a_worker_leaves_the_other_queue_alone(self) -> None:
        order = self.order()
        self.work("default")
        order.refresh_from_db()
        self.assertTrue(order.invoice)
        self.assertFalse(order.receipt)

    def test_urgent_tasks_go_first(self) -> None:
        for _ in range(2):
            self.order()
        self.work("priority")
        done = DBTaskResult.objects.successful().order_by("started_at").values_list("task_path", flat=True)
        self.assertEqual(list(done), ["orders.tasks.take_payment"] * 2 + ["orders.tasks.book_courier"] * 2)

    def test_a_declined_card_fails_the_payment_only(self) -> None:
        order = self.order(DECLINED_CARD)
        self.work("*")
        failed = DBTaskResult.objects.get(status=TaskResultStatus.FAILED)
        self.assertEqual(failed.task_path, "orders.tasks.take_payment")
        self.assertEqual(failed.exception_class_path, "orders.outside.CardDeclinedError")
        order.refresh_from_db()
        self.assertTrue(order.tracking)
        self.assertFalse(order.receipt)

    def test_the_review_is_asked_for_days_later(self) -> None:
        order = self.order()
        self.work("*")
        self.assertFalse(SentMail.objects.filter(order=order, kind="review").exists())
        DBTaskResult.objects.update(run_after=timezone.now() - timedelta(seconds=1))
        self.work("*")
        self.assertTrue(SentMail.objects.filter(order=order, kind="review").exists())

    def test_a_task_that_runs_again_does_nothing_twice(self) -> None:
        order = self.order()
        self.work("*")
        order.refresh_from_db()
        receipt = order.receipt
        DBTaskResult.objects.update(status=TaskResultStatus.READY)
        self.work("*")
        order.refresh_from_db()
        self.assertEqual(order.receipt, receipt)
        self.assertEqual(len(mail.outbox), 1)

    def test_a_burst(self) -> None:
        call_command("place_orders", 3, declined=1, review_after=0, verbosity=0)
        self.work("*")
        self.assertEqual(
            count_tasks(), {"pending": 0, "deferred": 0, "running": 0, "successful": 14, "failed": 1}
        )
