from django import forms

from orders.models import Order


class OrderForm(forms.ModelForm[Order]):
    class Meta:
        model = Order
        fields = ("email", "article", "quantity", "card_token")
