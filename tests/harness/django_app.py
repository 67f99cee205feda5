"""Migrations of Django: its own applications, and one that uses what migrations are made of. Rows are written between them.

Usage: python django_app.py DIRECTORY HOST PORT DATABASE
"""

import os
import sys
import textwrap

directory, host, port, database = sys.argv[1:]

MODELS = """
from django.db import models
"""

MIGRATIONS = {
    "0001_first": """
        operations = [
            migrations.CreateModel("Customer", [
                ("id", models.BigAutoField(primary_key=True)), ("name", models.CharField(max_length=50, db_index=True)),
                ("mail", models.EmailField(unique=True)), ("made", models.DateTimeField(auto_now_add=True))]),
            migrations.CreateModel("Order", [
                ("id", models.AutoField(primary_key=True)), ("total", models.DecimalField(max_digits=9, decimal_places=2, default=0)),
                ("customer", models.ForeignKey(on_delete=models.CASCADE, to="shop.customer"))],
                options={"db_table": 'odd order; table'}),
        ]""",
    "0002_fields": """
        operations = [
            migrations.AddField("customer", "token", models.UUIDField(default=uuid.uuid4)),
            migrations.AddField("customer", "score", models.IntegerField(null=True)),
            migrations.AddField("order", "note", models.TextField(default="it's; $$ a 'note'")),
            migrations.AddIndex("customer", models.Index(fields=["score", "-name"], name="by_score")),
            migrations.AddConstraint("customer", models.UniqueConstraint(fields=["name", "token"], name="one;token")),
        ]""",
    "0003_data": """
        def fill(apps, editor):
            Customer = apps.get_model("shop", "Customer")
            for customer in Customer.objects.all():
                customer.score = customer.id * 7
                customer.save()
            Customer.objects.create(name="by a migration", mail="m@x", made="2020-01-01T00:00:00Z")

        operations = [migrations.RunPython(fill, migrations.RunPython.noop)]""",
    "0004_alter": """
        operations = [
            migrations.AlterField("customer", "score", models.BigIntegerField(default=5)),
            migrations.AlterField("customer", "name", models.CharField(max_length=80)),
            migrations.RenameField("customer", "mail", "address"),
            migrations.RenameModel("Customer", "Client"),
            migrations.CreateModel("Tag", [("id", models.BigAutoField(primary_key=True)), ("word", models.CharField(max_length=9))]),
            migrations.AddField("order", "tags", models.ManyToManyField(to="shop.tag")),
        ]""",
    "0005_concurrently": """
        atomic = False
        operations = [AddIndexConcurrently("order", models.Index(fields=["total"], name="by_total"))]""",
    "0006_sql": """
        operations = [
            migrations.RunSQL('''
                create function shop_twice() returns trigger language plpgsql as $$ begin new.note := new.note || '; again'; return new; end $$;
                create trigger twice before insert on "odd order; table" for each row execute function shop_twice();
                create view rich as select id, total from "odd order; table" where total > 5;
                comment on view rich is 'a; comment';'''),
            migrations.RemoveField("order", "customer"),
            migrations.AlterModelTable("order", "orders"),
            migrations.AlterUniqueTogether("tag", {("id", "word")}),
        ]""",
    "0007_drop": """
        operations = [
            migrations.RunSQL("drop view rich; drop trigger twice on orders; drop function shop_twice()"),
            migrations.RemoveConstraint("client", "one;token"),
            migrations.RemoveIndex("client", "by_score"),
            migrations.AddField("tag", "at", models.DateTimeField(default=timezone.now)),
            migrations.RemoveField("order", "tags"),
            migrations.DeleteModel("Tag"),
        ]""",
}

os.makedirs(f"{directory}/shop/migrations", exist_ok=True)
for name in ("shop/__init__.py", "shop/migrations/__init__.py"):
    open(f"{directory}/{name}", "w").close()
open(f"{directory}/shop/models.py", "w").write(MODELS)
previous = None
for name, body in MIGRATIONS.items():
    depends = f'[("shop", "{previous}")]' if previous else "[]"
    text = "import uuid\nfrom django.contrib.postgres.operations import AddIndexConcurrently\nfrom django.db import migrations, models\nfrom django.utils import timezone\n\n\n"
    body = textwrap.dedent(body).strip("\n")
    functions, _, rest = body.partition("operations")
    if "def " in functions:
        text += functions
        body = "operations" + rest
    text += f"class Migration(migrations.Migration):\n    dependencies = {depends}\n" + textwrap.indent(body, "    ") + "\n"
    open(f"{directory}/shop/migrations/{name}.py", "w").write(text)
    previous = name

sys.path.insert(0, directory)
import django
from django.conf import settings

settings.configure(
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "django.contrib.sessions", "django.contrib.sites", "shop"],
    DATABASES={"default": {"ENGINE": "django.db.backends.postgresql", "HOST": host, "PORT": port, "NAME": database, "USER": "postgres"}},
    USE_TZ=True, SITE_ID=1, DEFAULT_AUTO_FIELD="django.db.models.BigAutoField", SECRET_KEY="x",
)
django.setup()
from django.core.management import call_command
from django.db import connection

WRITES = {
    "0001_first": """insert into shop_customer (name, mail, made) select 'c' || i, i || '@x', now() from generate_series(1, 5) i;
                     insert into "odd order; table" (total, customer_id) select i, i from generate_series(1, 5) i""",
    "0002_fields": "update shop_customer set score = 1 where id = 2; delete from \"odd order; table\" where id = 5",
    "0003_data": "update shop_customer set name = name || '!'",
    "0004_alter": """insert into shop_tag (word) values ('a'), ('b'); insert into "odd order; table_tags" (order_id, tag_id) values (1, 1), (2, 2)""",
    "0005_concurrently": "update \"odd order; table\" set total = total + 1.5",
    "0006_sql": "insert into orders (total, note) values (100, 'x'); update orders set note = 'y' where id = 1",
    "0007_drop": "update shop_client set address = 'z' || id",
}

call_command("migrate", "auth", verbosity=0)
call_command("migrate", "sessions", verbosity=0)
call_command("migrate", "sites", verbosity=0)
for name in MIGRATIONS:
    call_command("migrate", "shop", name, verbosity=0)
    with connection.cursor() as cursor:
        cursor.execute(WRITES[name])
call_command("migrate", "sites", "zero", verbosity=0)
print("migrated")
