from typing import override

from django.db import models


class Order(models.Model):
    email = models.EmailField()
    article = models.CharField(max_length=100)
    quantity = models.PositiveIntegerField(default=1)
    card_token = models.CharField(
        max_length=50, help_text="From the payment provider: the shop never sees a card."
    )
    placed_at = models.DateTimeField(auto_now_add=True)
    receipt = models.CharField(max_length=100, blank=True, help_text="Empty until the order is paid.")
    invoice = models.TextField(blank=True)
    tracking = models.CharField(max_length=100, blank=True)

    @override
    def __str__(self) -> str:
        return f"order {self.pk}: {self.quantity} {self.article}"
