from typing import override

from django.db import models


class SentMail(models.Model):
    """A mail that has been sent, so that a task that runs twice sends it only once."""

    order = models.ForeignKey("orders.Order", on_delete=models.CASCADE)
    kind = models.CharField(max_length=20)
    sent_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = (
            models.UniqueConstraint(fields=["order", "kind"], name="one_mail_of_a_kind_per_order"),
        )

    @override
    def __str__(self) -> str:
        return f"{self.kind} of {self.order}"
