"""The project serves nothing."""

urlpatterns = []
