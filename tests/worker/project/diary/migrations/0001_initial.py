from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True
    dependencies = ()
    operations = (
        migrations.CreateModel(
            name="Entry",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("what", models.CharField(max_length=200)),
                ("task", models.CharField(max_length=64)),
                ("pid", models.IntegerField()),
                ("thread", models.CharField(max_length=100)),
                ("at", models.FloatField()),
            ],
            options={"ordering": ("id",)},
        ),
    )
