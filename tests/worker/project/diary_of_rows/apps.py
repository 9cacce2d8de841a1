from django.apps import AppConfig
from django.db.models.signals import post_save


class DiaryOfRowsConfig(AppConfig):
    name = "diary_of_rows"

    def ready(self):
        post_save.connect(saved)


def saved(**_):
    pass
