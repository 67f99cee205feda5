-- A capture trigger in PL/Python that works as the one of the Python original of pyreplica did: the change as the text of
-- an SQL instruction, its values by repr, one INSERT into a log and one NOTIFY a row. Arguments: the table's name, then the
-- columns of its key.

create extension plpython3u;

create table python_log (
    id bigserial primary key,
    sql text,
    replicated boolean default false,
    username text default current_user,
    ts timestamptz default now()
);
create index on python_log (replicated);

create function python_log() returns trigger language plpython3u as $$
table, keys = TD["args"][0], TD["args"][1:]
old, new, event = TD["old"], TD["new"], TD["event"]

def literal(value):
    if value is None:
        return "NULL"
    if isinstance(value, (int, float, bool)):
        return str(value)
    return repr(str(value))

def condition():
    return " AND ".join('"%s"=%s' % (key, literal(old[key])) for key in keys)

if event == "INSERT":
    columns = list(new)
    sql = 'INSERT INTO "%s" (%s) VALUES (%s)' % (
        table, ",".join('"%s"' % column for column in columns), ",".join(literal(new[column]) for column in columns))
elif event == "UPDATE":
    changed = ['"%s"=%s' % (column, literal(new[column])) for column in new if new[column] != old[column]]
    sql = 'UPDATE "%s" SET %s WHERE %s' % (table, ",".join(changed), condition()) if changed else None
else:
    sql = 'DELETE FROM "%s" WHERE %s' % (table, condition())

if sql:
    if "insert" not in SD:
        SD["insert"] = plpy.prepare("INSERT INTO python_log (sql) VALUES ($1)", ["text"])
        SD["notify"] = plpy.prepare("NOTIFY replicas")
    plpy.execute(SD["insert"], [sql])
    plpy.execute(SD["notify"])
$$;
