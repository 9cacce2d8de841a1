from datetime import timedelta

from django.db import connection, transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_GET, require_http_methods

from orders.forms import OrderForm
from orders.models import Order
from orders.tasks import enqueue_all


@require_http_methods(["GET", "POST"])
def place_order(request: HttpRequest) -> HttpResponse:
    form = OrderForm(request.POST or None)
    if not form.is_valid():
        latest = Order.objects.order_by("-pk")[:20]
        return render(request, "orders/place_order.html", {"form": form, "latest": latest})
    # The tasks are rows in the same database: order and tasks are committed together or not at all.
    with transaction.atomic():
        order = form.save()
        enqueue_all(order, review_after=timedelta(days=3))
    return redirect("show-order", pk=order.pk)


@require_GET
def show_order(request: HttpRequest, pk: int) -> HttpResponse:
    return render(request, "orders/show_order.html", {"order": get_object_or_404(Order, pk=pk)})


@require_GET
def healthz(request: HttpRequest) -> HttpResponse:  # noqa: ARG001
    connection.ensure_connection()
    return HttpResponse("ok", content_type="text/plain")
