//! Tables that are more than a heap of rows: partitions, inheritance, generated and identity columns, foreign keys,
//! rules of their owner's own triggers.

use crate::harness::{Pair, drains, replays, replays_each};

// == Partitions ==

const MEASURES: &str = "
    create table measure (id int, day date, value numeric, primary key (id, day)) partition by range (day);
    create table measure_1 partition of measure for values from ('2024-01-01') to ('2024-02-01');
    create table measure_2 partition of measure for values from ('2024-02-01') to ('2024-03-01')";

#[test]
fn rows_written_through_the_parent_land_in_their_partitions() {
    replays_each(
        MEASURES,
        &[
            "insert into measure select i, date '2024-01-10' + i, i from generate_series(1, 40) i",
            "update measure set value = value * 1.5 where id % 2 = 0",
            "delete from measure where id < 5",
        ],
    );
}

#[test]
fn rows_written_to_a_partition_directly_are_replayed() {
    replays_each(
        MEASURES,
        &[
            "insert into measure_1 values (1, '2024-01-01', 1), (2, '2024-01-31', 2)",
            "update measure_1 set value = 3 where id = 1",
            "delete from measure_1 where id = 2",
        ],
    );
}

#[test]
fn an_update_that_moves_a_row_between_partitions_is_replayed() {
    replays_each(
        MEASURES,
        &[
            "insert into measure values (1, '2024-01-05', 1), (2, '2024-02-05', 2)",
            "update measure set day = day + 31, value = 10 where id = 1",
            "update measure set value = 20",
        ],
    );
}

#[test]
fn a_new_partition_needs_its_trigger_and_nothing_else() {
    let pair = Pair::new();
    pair.exec_both(MEASURES);
    pair.create_triggers();
    pair.run("insert into measure values (1, '2024-01-05', 1)");
    drains(&pair);
    pair.exec_both("create table measure_3 partition of measure for values from ('2024-03-01') to ('2024-04-01')");
    pair.create_triggers();
    pair.run("insert into measure values (3, '2024-03-05', 3); update measure set day = '2024-03-06' where id = 1");
    drains(&pair);
}

#[test]
fn a_partition_that_is_detached_is_replicated_once_it_has_a_trigger_of_its_own() {
    let pair = Pair::new();
    pair.exec_both(MEASURES);
    pair.create_triggers();
    pair.run("insert into measure values (1, '2024-01-05', 1), (2, '2024-02-05', 2)");
    drains(&pair);
    // The server takes the parent's trigger away from a table that leaves it.
    pair.exec_both("alter table measure detach partition measure_2");
    pair.create_triggers();
    pair.run("update measure_2 set value = 3; insert into measure values (4, '2024-01-06', 4)");
    drains(&pair);
}

#[test]
fn truncate_of_a_partitioned_table_is_replayed() {
    replays_each(
        MEASURES,
        &[
            "insert into measure values (1, '2024-01-05', 1), (2, '2024-02-05', 2)",
            "truncate measure",
            "insert into measure values (3, '2024-01-05', 3)",
        ],
    );
}

#[test]
fn partitions_of_partitions_by_list_and_hash_are_replayed() {
    replays_each(
        "create table t (id int, kind text, a text, primary key (id, kind)) partition by list (kind);
         create table t_x partition of t for values in ('x') partition by hash (id);
         create table t_x0 partition of t_x for values with (modulus 2, remainder 0);
         create table t_x1 partition of t_x for values with (modulus 2, remainder 1);
         create table t_rest partition of t default",
        &[
            "insert into t select i, case when i % 3 = 0 then 'x' else 'other' end, null from generate_series(1, 30) i",
            "update t set kind = 'x', a = 'moved' where id between 10 and 20",
            "delete from t where id > 25",
        ],
    );
}

#[test]
fn partitions_with_columns_in_another_order_are_replayed() {
    replays_each(
        "create table t (id int primary key, a text, b text) partition by range (id);
         create table t_1 (b text, id int not null, junk int, a text);
         alter table t_1 drop column junk;
         alter table t_1 add primary key (id);
         alter table t attach partition t_1 for values from (0) to (100)",
        &["insert into t values (1, 'a', 'b'), (2, 'c', 'd')", "update t set a = b, b = a where id = 1"],
    );
}

#[test]
fn inheritance_children_keep_their_own_rows_and_columns() {
    replays_each(
        "create table base (id int primary key, a text);
         create table child (extra text, primary key (id)) inherits (base)",
        &[
            "insert into base values (1, 'base'); insert into child values (1, 'child', 'more'), (2, 'child', 'more')",
            "update base set a = a || '!'; update child set extra = 'changed' where id = 2",
            "delete from base where id = 2",
        ],
    );
}

// == Generated, identity and serial columns, defaults ==

#[test]
fn generated_columns_are_computed_on_the_slave() {
    replays_each(
        "create table t (id int primary key, a int, twice int generated always as (a * 2) stored, b text)",
        &[
            "insert into t(id, a, b) values (1, 10, 'x'), (2, null, 'y')",
            "update t set a = 11 where id = 1; update t set b = 'z' where id = 2",
            "update t set id = 3 where id = 2; delete from t where id = 1",
        ],
    );
}

#[test]
fn a_generated_column_in_the_key_is_replayed() {
    replays_each(
        "create table t (a int, twice int generated always as (a * 2) stored, b text, primary key (twice))",
        &[
            "insert into t(a, b) values (1, 'x'), (2, 'y'), (3, 'z')",
            "update t set b = 'w' where a = 1; update t set a = 20 where a = 2; delete from t where a = 3",
        ],
    );
}

#[test]
fn identity_columns_of_both_kinds_arrive_with_the_master_s_values() {
    replays_each(
        "create table strict (id int generated always as identity (start 100 increment 7) primary key, a text);
         create table loose (id bigint generated by default as identity primary key, a text);
         create table beside (k text primary key, n int generated always as identity, a text)",
        &[
            "insert into strict(a) values ('a'), ('b'), ('c'); insert into loose(a) values ('a'), ('b');
             insert into beside(k) values ('x'), ('y')",
            "insert into strict overriding system value values (1, 'odd'); insert into loose values (77, 'odd')",
            "update strict set a = 'changed' where id = 107; update beside set a = 'changed', k = 'z' where k = 'x'",
            "update strict set id = default where id = 1; update beside set n = default where k = 'y'",
            "delete from strict where id = 100",
        ],
    );
}

#[test]
fn the_slave_s_own_defaults_and_sequences_are_not_used() {
    let pair = Pair::new();
    pair.run("create table t (id serial primary key, a text default 'master', at timestamptz default now())");
    pair.run_on_slave(
        "create table t (id serial primary key, a text default 'slave', at timestamptz default 'epoch');
         select setval('t_id_seq', 1000)",
    );
    pair.create_triggers();
    pair.run("insert into t default values; insert into t(a) values (null); insert into t(at) values (null)");
    drains(&pair);
}

#[test]
fn columns_may_stand_in_another_order_on_the_slave() {
    let pair = Pair::new();
    pair.run("create table t (id int primary key, a text, b int)");
    pair.run_on_slave("create table t (b int, a text, id int primary key)");
    pair.create_triggers();
    pair.run("insert into t values (1, 'x', 10), (2, 'y', 20)");
    pair.run("update t set a = 'z' where id = 1; update t set id = 3 where id = 2");
    drains(&pair);
}

#[test]
fn a_column_that_only_the_slave_has_keeps_its_default() {
    let pair = Pair::new();
    pair.run("create table t (id int primary key, a text)");
    pair.run_on_slave("create table t (id int primary key, a text, extra text default 'own')");
    pair.create_triggers();
    pair.run("insert into t values (1, 'x')");
    pair.run("update t set a = 'y'");
    pair.once();
    assert_eq!(pair.on_slave("select a || extra from t"), ["yown"]);
}

#[test]
fn unlogged_tables_and_tables_with_only_a_key_are_replayed() {
    replays_each(
        "create unlogged table u (id int primary key, a text); create table k (a int, b int, primary key (a, b))",
        &[
            "insert into u values (1, 'a'); insert into k values (1, 1), (1, 2)",
            "update u set a = null; update k set b = b + 10 where b = 2; delete from k where b = 1",
        ],
    );
}

// == Foreign keys ==

#[test]
fn foreign_keys_with_cascades_are_replayed_once() {
    replays_each(
        "create table parent (id int primary key);
         create table child (id int primary key, parent int references parent on delete cascade on update cascade);
         create table note (id int primary key, child int references child on delete set null,
                            other int default 1 references parent on delete set default)",
        &[
            "insert into parent select generate_series(1, 5)",
            "insert into child select i, (i - 1) / 2 + 1 from generate_series(1, 8) i;
             insert into note select i, i, 5 from generate_series(1, 8) i",
            "update parent set id = 20 where id = 2",
            "delete from parent where id in (3, 5)",
            "delete from child where id = 1",
        ],
    );
}

#[test]
fn foreign_keys_that_are_checked_at_the_end_of_the_transaction_are_replayed() {
    replays(
        "create table husband (id int primary key, wife int);
         create table wife (id int primary key, husband int references husband deferrable initially deferred);
         alter table husband add foreign key (wife) references wife deferrable initially deferred",
        "insert into husband values (1, 1), (2, 2); insert into wife values (1, 1), (2, 2)",
    );
}

#[test]
fn a_table_that_refers_to_itself_is_replayed() {
    replays_each(
        "create table tree (id int primary key, parent int references tree on delete cascade)",
        &[
            "insert into tree values (1, null), (2, 1), (3, 2), (4, 2), (5, 1)",
            "update tree set parent = 5 where id = 3",
            "delete from tree where id = 2",
        ],
    );
}

// == The owner's own triggers ==

#[test]
fn rows_written_by_a_trigger_are_replayed_once_although_the_slave_has_it_too() {
    let pair = Pair::new();
    pair.exec_both(
        "create table account (id int primary key, balance int);
         create table audit (id int generated by default as identity primary key, account int, was int, is_now int);
         create function audit() returns trigger language plpgsql as $$ begin
             insert into audit(account, was, is_now) values (new.id, old.balance, new.balance);
             return new;
         end $$;
         create trigger audit after insert or update on account for each row execute function audit()",
    );
    pair.create_triggers();
    pair.run("insert into account select i, 100 from generate_series(1, 5) i");
    pair.run("update account set balance = balance - id");
    drains(&pair);
    assert_eq!(pair.on_slave("select count(*) from audit"), ["10"]);
}

#[test]
fn an_after_trigger_that_updates_the_same_row_is_replayed_in_order() {
    let pair = Pair::new();
    pair.exec_both(
        "create table t (id int primary key, a int, stamp int default 0);
         create function again() returns trigger language plpgsql as $$ begin
             if new.stamp < 3 then update t set stamp = stamp + 1 where id = new.id; end if;
             return null;
         end $$;
         create trigger \"A first\" after insert or update on t for each row execute function again()",
    );
    pair.create_triggers();
    pair.run("insert into t values (1, 1), (2, 2)");
    pair.run("update t set a = a + 1, stamp = 0");
    drains(&pair);
    assert_eq!(pair.on_slave("select distinct stamp from t"), ["3"]);
}

#[test]
fn a_before_trigger_that_changes_the_row_is_replayed_with_its_result() {
    let pair = Pair::new();
    pair.exec_both(
        "create table t (id int primary key, a text, touched int default 0);
         create function touch() returns trigger language plpgsql as $$ begin
             new.touched := new.touched + 1; new.a := upper(new.a);
             if new.a = 'SKIP' then return null; end if;
             return new;
         end $$;
         create trigger touch before insert or update on t for each row execute function touch()",
    );
    pair.create_triggers();
    pair.run("insert into t values (1, 'one'), (2, 'skip'), (3, 'three')");
    pair.run("update t set a = 'skip' where id = 1; update t set a = 'drei' where id = 3");
    drains(&pair);
    assert_eq!(pair.on_slave("select a || touched from t order by id"), ["ONE1", "DREI2"]);
}

#[test]
fn views_and_rules_are_replayed_as_what_they_do_to_the_tables() {
    replays_each(
        "create table t (id int primary key, a text); create view v as select id, a from t where a <> 'hidden';
         create table history (id int generated by default as identity primary key, a text);
         create rule keep as on delete to t do also insert into history(a) values (old.a)",
        &["insert into v values (1, 'one'), (2, 'hidden')", "update v set a = 'eins'", "delete from t where id = 2"],
    );
}

#[test]
fn truncating_a_partition_that_is_another_part_on_the_slave_is_refused() {
    let pair = Pair::new();
    let root = "create table pt (id int primary key) partition by range (id); create table plain (id int primary key)";
    pair.run(&format!(
        "{root}; create table p1 partition of pt for values from (0) to (100);
         create table p2 partition of pt for values from (100) to (200); create table p3 partition of pt default"
    ));
    pair.run_on_slave(&format!(
        "{root}; create table p1 partition of pt for values from (0) to (150); create table p3 partition of pt default"
    ));
    pair.create_triggers();
    pair.run("select py_log_create_tg('pt')");
    let fill = "insert into pt values (5), (120), (300); insert into plain values (1)";
    pair.run(fill);
    pair.once();
    for partition in ["p1", "p3"] {
        pair.run(&format!("truncate {partition}"));
        let finished = pair.try_once();
        assert_eq!(finished.code(), 6, "{}", finished.output);
        assert_eq!(finished.count("is another part of the table"), 1, "{}", finished.output);
        assert_eq!(pair.on_slave("select count(*) from pt"), ["3"]);
        pair.run("update replica_log set replicated = true");
    }
    // Its part does not matter where the whole table is emptied.
    pair.run("truncate pt; truncate plain");
    pair.once();
    assert_eq!(pair.on_slave("select (select count(*) from pt) + (select count(*) from plain)"), ["0"]);
}
