from django.apps import AppConfig

from beating import start


class BeatingConfig(AppConfig):
    name = "beating"

    def ready(self):
        start()
