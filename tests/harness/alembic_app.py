"""Migrations of Alembic (SQLAlchemy), with rows written between them: one up, then all down to the first, and up again.

Usage: python alembic_app.py DIRECTORY HOST PORT DATABASE
"""

import os
import sys
import textwrap

directory, host, port, database = sys.argv[1:]

MIGRATIONS = {
    "first": """
        def upgrade():
            op.create_table(
                "customer",
                sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
                sa.Column("name", sa.String(50), nullable=False, index=True, comment="it's; a name"),
                sa.Column("made", sa.DateTime(timezone=True), server_default=sa.func.now()),
                sa.Column("state", sa.Enum("new", "it's; old", name="state"), server_default="new"),
                sa.CheckConstraint("name <> ';'", name="no;name"))
            op.create_table(
                "order",
                sa.Column("id", sa.Integer, primary_key=True),
                sa.Column("customer_id", sa.BigInteger, sa.ForeignKey("customer.id", ondelete="CASCADE")),
                sa.Column("total", sa.Numeric(9, 2)),
                sa.Column("twice", sa.Numeric(9, 2), sa.Computed("total * 2", persisted=True)))

        def downgrade():
            op.drop_table("order")
            op.drop_table("customer")
            sa.Enum(name="state").drop(op.get_bind())
        """,
    "columns": """
        def upgrade():
            op.add_column("customer", sa.Column("token", pg.UUID, server_default=sa.text("gen_random_uuid()"), nullable=False))
            op.add_column("customer", sa.Column("more", pg.JSONB, server_default=sa.text("'{\\"a\\": \\"; --\\"}'::jsonb")))
            op.alter_column("order", "total", new_column_name="amount")
            op.alter_column("customer", "name", type_=sa.String(80), existing_type=sa.String(50), existing_nullable=False)
            op.create_unique_constraint("one;token", "customer", ["token"])
            op.create_index("by_more", "customer", ["more"], postgresql_using="gin")
            op.create_index("new ones", "customer", ["made"], postgresql_where=sa.text("state = 'new'"))

        def downgrade():
            op.drop_index("new ones", "customer")
            op.drop_index("by_more", "customer")
            op.drop_constraint("one;token", "customer")
            op.alter_column("customer", "name", type_=sa.String(70), existing_type=sa.String(80), existing_nullable=False)
            op.alter_column("order", "amount", new_column_name="total")
            op.drop_column("customer", "more")
            op.drop_column("customer", "token")
        """,
    "data": """
        def upgrade():
            table = sa.table("customer", sa.column("name"), sa.column("state"))
            op.bulk_insert(table, [{"name": f"bulk {i}", "state": "new"} for i in range(5)])
            op.execute(sa.update(table).where(table.c.name == "bulk 1").values(state="it's; old"))
            op.execute("insert into \\"order\\" (customer_id, amount) select id, id * 1.5 from customer")

        def downgrade():
            op.execute("delete from customer where name like 'bulk %'")
        """,
    "concurrently": """
        def upgrade():
            with op.get_context().autocommit_block():
                op.create_index("by_amount", "order", ["amount"], postgresql_concurrently=True)
                op.execute("alter type state add value 'third' after 'new'")

        def downgrade():
            with op.get_context().autocommit_block():
                op.drop_index("by_amount", "order", postgresql_concurrently=True)
        """,
    "code": """
        def upgrade():
            op.execute(\"\"\"
                create function stamp() returns trigger language plpgsql as $$ begin new.name := new.name || '; x'; return new; end $$;
                create trigger stamp before insert on customer for each row execute function stamp();
                do $do$ begin execute 'create view rich as select id, amount from "order" where amount > 3'; end $do$\"\"\")
            op.create_table_comment("customer", "who; buys", existing_comment=None)
            op.rename_table("order", "orders")

        def downgrade():
            op.rename_table("orders", "order")
            op.drop_table_comment("customer")
            op.execute("drop view rich; drop trigger stamp on customer; drop function stamp()")
        """,
}

WRITES = [
    "insert into customer (name) select 'c' || i from generate_series(1, 5) i; insert into \"order\" (customer_id, total) values (1, 2)",
    "update customer set more = '{\"k\": 1}' where id % 2 = 0; update \"order\" set amount = 7",
    "delete from customer where id = 3; insert into customer (name) values ('after data')",
    "insert into \"order\" (customer_id, amount) values (1, 100); update customer set state = 'third' where id = 1",
    "insert into customer (name) values ('stamped'); update orders set amount = amount + 1",
]

os.makedirs(f"{directory}/versions")
with open(f"{directory}/env.py", "w") as env:
    env.write(textwrap.dedent("""
        from alembic import context
        from sqlalchemy import create_engine

        engine = create_engine(context.config.get_main_option("sqlalchemy.url"))
        with engine.connect() as connection:
            context.configure(connection=connection, transaction_per_migration=True)
            with context.begin_transaction():
                context.run_migrations()
        """))
previous = None
for name, body in MIGRATIONS.items():
    with open(f"{directory}/versions/{name}.py", "w") as version:
        version.write("import sqlalchemy as sa\nfrom alembic import op\nfrom sqlalchemy.dialects import postgresql as pg\n\n")
        version.write(f"revision = {name!r}\ndown_revision = {previous!r}\n" + textwrap.dedent(body))
    previous = name

import psycopg2
from alembic import command
from alembic.config import Config

config = Config()
config.set_main_option("script_location", directory)
config.set_main_option("sqlalchemy.url", f"postgresql+psycopg2://postgres@{host}:{port}/{database}")


def write(text):
    connection = psycopg2.connect(host=host, port=port, dbname=database, user="postgres")
    with connection, connection.cursor() as cursor:
        cursor.execute(text)
    connection.close()


for name, text in zip(MIGRATIONS, WRITES):
    command.upgrade(config, name)
    write(text)
# A label of an enum is not taken away again, and "old" rows may have it.
write("delete from customer where state::text = 'third'")
command.downgrade(config, "columns")
write("insert into customer (name) values ('below')")
command.downgrade(config, "first")
command.upgrade(config, "columns")
write("insert into customer (name) values ('again')")
print("migrated")
