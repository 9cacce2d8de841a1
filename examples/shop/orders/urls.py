from django.urls import path

from orders import views

urlpatterns = [
    path("", views.place_order, name="place-order"),
    path("orders/<int:pk>/", views.show_order, name="show-order"),
    path("healthz", views.healthz, name="healthz"),
]
