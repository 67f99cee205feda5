//! Every value arrives exactly, whatever its type, and whatever the session that wrote it has set for the output of dates,
//! intervals, numbers, bytes and characters.

use crate::harness::{Pair, drains, drains_at_once, replays_each};

/// Types, and for each at least two values as SQL expressions. NULL is added to all.
pub const MATRIX: &[(&str, &[&str])] = &[
    ("boolean", &["true", "false"]),
    ("smallint", &["-32768", "32767", "0"]),
    ("integer", &["-2147483648", "2147483647"]),
    ("bigint", &["-9223372036854775808", "9223372036854775807"]),
    (
        "numeric",
        &[
            "0",
            "0.00",
            "1.10",
            "-1e-300",
            "12345678901234567890123456789012345678901234567890.000000000000000000000001",
            "'NaN'",
            "1e1000",
        ],
    ),
    ("numeric(10,3)", &["1.1", "-9999999.999", "0"]),
    (
        "float8",
        &[
            "0.1::float8 + 0.2::float8",
            "'NaN'",
            "'Infinity'",
            "'-Infinity'",
            "'-0'",
            "'0'",
            "5e-324",
            "1.7976931348623157e308",
        ],
    ),
    ("float4", &["0.1", "'NaN'", "'Infinity'", "'-Infinity'", "'-0'", "'0'", "1e-45", "3.4028235e38", "16777217"]),
    ("money", &["1234567.89::money", "(-0.01)::money", "0::money"]),
    ("text", &["''", "'it''s'", "'NULL'", "E'\\\\ \\n \\t'", "'{\"a\"}'", "repeat('long ', 20000)", "'日本語 é'"]),
    ("varchar(10)", &["''", "'ten chars.'", "' '"]),
    ("char(5)", &["'ab'", "''", "'     '", "'abcde'"]),
    ("\"char\"", &["'a'", "''", "'\\'"]),
    ("name", &["'a name'", "''"]),
    (
        "bytea",
        &[
            "''",
            "'\\x00'",
            "(select string_agg(decode(lpad(to_hex(i), 2, '0'), 'hex'), '' order by i) from generate_series(0, 255) i)",
            "'\\\\x41'",
        ],
    ),
    ("date", &["'2024-02-29'", "'0044-03-15 BC'", "'infinity'", "'-infinity'", "'5874897-12-31'", "'4713-01-01 BC'"]),
    ("time", &["'00:00'", "'24:00'", "'23:59:59.999999'"]),
    ("timetz", &["'12:00+14'", "'12:00:00.000001-11:30'", "'00:00+05:30:15'"]),
    (
        "timestamp",
        &[
            "'2024-02-29 12:34:56.789012'",
            "'infinity'",
            "'-infinity'",
            "'0044-03-15 12:00 BC'",
            "'294276-12-31 23:59:59.999999'",
        ],
    ),
    (
        "timestamptz",
        &[
            "'2024-02-29 12:34:56.789012+00'",
            "'infinity'",
            "'-infinity'",
            "'0044-03-15 12:00+00 BC'",
            "'1880-01-01 00:00+00'",
            // The hour that comes twice at the end of summer time, both times.
            "'2024-10-27 00:30+00'",
            "'2024-10-27 01:30+00'",
        ],
    ),
    ("timestamptz(0)", &["'2024-02-29 12:34:56+00'"]),
    (
        "interval",
        &[
            "'0'",
            "'1 year -2 mons 3 days -04:05:06.7'",
            "'-1 year 2 mons -3 days 04:05:06.789'",
            "'-00:00:00.000001'",
            "'1 day -1 sec'",
            "'178000000 years'",
            "make_interval(months => -5, days => 40, secs => -100000.5)",
        ],
    ),
    ("uuid", &["'00000000-0000-0000-0000-000000000000'", "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'"]),
    (
        "json",
        &["'null'", "'{\"b\":1,  \"a\":[1.0,null,\"\"], \"a\":2}'", "'\"\\u00e9\\n\"'", "'  [ ]'", "'1e400'", "'-0'"],
    ),
    (
        "jsonb",
        &["'null'", "'{\"b\":1,\"a\":[1.0,null,\"\"]}'", "'\"quo\\\"te\\\\\"'", "'[]'", "'-0'", "'1.10'", "'\"\"'"],
    ),
    ("jsonpath", &["'$.a[*] ? (@ > 1)'", "'strict $'"]),
    ("xml", &["'<a b=\"c\">é&amp;</a>'", "'text'", "'<!-- c -->'"]),
    ("tsvector", &["'a:1A b:2,3B ''it''''s'':4'", "''", "to_tsvector('simple', 'the quick fox')"]),
    ("tsquery", &["'a & !b | c:*AB'", "''", "'a <-> b'"]),
    ("point", &["'(0.1,-0)'", "'(Infinity,NaN)'", "'(1e300,1e-300)'"]),
    ("line", &["'{1,-1,0.1}'", "'{0,1,0}'"]),
    ("lseg", &["'[(0,0),(0.1,0.2)]'"]),
    ("box", &["'(1,1),(0.1,0.2)'", "'(0,0),(0,0)'"]),
    ("path", &["'[(0,0),(1,1)]'", "'((0,0),(1,1),(2,0.1))'"]),
    ("polygon", &["'((0,0),(1,1),(2,0.3))'", "'((0,0))'"]),
    ("circle", &["'<(0.1,0.2),3>'", "'<(0,0),0>'"]),
    ("inet", &["'10.0.0.1'", "'10.0.0.1/8'", "'::ffff:1.2.3.4/128'", "'fe80::1/64'"]),
    ("cidr", &["'10.0.0.0/8'", "'::/0'", "'1.2.3.4'"]),
    ("macaddr", &["'08:00:2b:01:02:03'", "'ff:ff:ff:ff:ff:ff'"]),
    ("macaddr8", &["'08:00:2b:01:02:03:04:05'", "'00:00:00:00:00:00:00:00'"]),
    ("bit(9)", &["B'101010101'", "B'000000000'"]),
    ("bit varying", &["B'1'", "B''", "B'10100000000000000000000000000000000000000000000001'"]),
    ("int4range", &["'[1,5)'", "'empty'", "'(,)'", "'[5,]'"]),
    ("numrange", &["'[1.10,5.500]'", "'(,0)'", "'empty'"]),
    ("tsrange", &["'[2024-02-29 00:00, infinity]'", "'(,\"2024-01-01 12:00\")'"]),
    ("tstzrange", &["'[\"2024-02-29 00:00+00\",\"2024-03-01 00:00+00\")'", "'(-infinity,infinity)'"]),
    ("daterange", &["'[2024-02-28,2024-03-01)'", "'[0044-03-15 BC,)'"]),
    ("int[]", &["'{}'", "'{1,NULL,-3}'", "'[0:2]={1,2,3}'", "'[-1:0][2:3]={{1,2},{3,4}}'", "'{{1,2},{3,4}}'"]),
    (
        "text[]",
        &[
            "array['', 'NULL', null, 'a,b', '{x}', '\"', '\\', ' ', 'it''s', E'line\\nbreak']",
            "'{}'",
            "'[5:5]={\"\"}'",
            "array[['a','b'],[null,'d']]",
        ],
    ),
    ("bytea[]", &["array['\\x00ff'::bytea, '', null]"]),
    ("float8[]", &["'{NaN,-0,Infinity,0.30000000000000004}'"]),
    ("jsonb[]", &["array['null'::jsonb, null, '{\"a\":\"b,c\"}']"]),
    ("timestamptz[]", &["'{\"2024-02-29 12:00+00\",infinity,NULL}'"]),
    ("interval[]", &["'{\"1 day -2 hours\",NULL,\"-1 mon\"}'"]),
    ("box[]", &["'{(1,1),(0,0);(2,2),(1,1)}'"]),
    ("int4range[]", &["'{\"[1,5)\",empty,NULL}'"]),
    ("oid", &["4294967295", "0"]),
    ("regclass", &["'pg_class'", "0::regclass"]),
    ("regtype", &["'integer'", "'text[]'"]),
    ("regproc", &["'now'"]),
    ("pg_lsn", &["'16/B374D848'", "'0/0'"]),
    ("pg_snapshot", &["'10:20:10,14,15'", "'1:1:'"]),
    ("txid_snapshot", &["'10:20:10,14,15'"]),
    ("tid", &["'(4294967295,65535)'", "'(0,1)'"]),
    ("xid", &["'4294967295'"]),
    ("cid", &["'7'"]),
    ("hstore", &["'a=>1, \"b c\"=>NULL, \"\"=>\"\"'", "''", "hstore('quo\"te', 'back\\slash')"]),
    ("mood", &["'so so'", "'it''s \"fine\"'", "'sad'"]),
    ("mood[]", &["'{sad,\"so so\"}'", "'{}'"]),
    ("positive", &["1", "2147483647"]),
    ("short_text", &["''", "'abc'"]),
    (
        "place",
        &["row('x, y', '(1,2)', 0.10)", "row(null, null, null)", "row('', '(0.1,-0)', 'NaN')", "row('\"(', null, 1)"],
    ),
    ("place[]", &["array[row('a', '(1,2)', 1)::place, null]", "'{}'"]),
    ("moods_range", &["'[sad,\"so so\"]'", "'empty'"]),
    ("\"Odd Type\"", &["'one'", "'Two'"]),
];

/// Multiranges came with PostgreSQL 14.
pub const MULTIRANGES: &[(&str, &[&str])] = &[
    ("int4multirange", &["'{}'", "'{[1,5),[7,9)}'"]),
    ("tstzmultirange", &["'{[\"2024-02-29 00:00+00\",\"2024-03-01 00:00+00\"),[infinity,)}'"]),
    ("nummultirange", &["'{(,1.10),[2.50,)}'"]),
];

pub const OWN_TYPES: &str = "
    create extension if not exists hstore;
    create type mood as enum ('sad', 'so so', 'it''s \"fine\"');
    create domain positive as int check (value > 0);
    create domain short_text as varchar(3) not null;
    create type place as (name text, spot point, \"Größe\" numeric);
    create type moods_range as range (subtype = mood);
    create type \"Odd Type\" as enum ('one', 'Two')";

/// A pair with one table a type: `t0`, `t1`, ... with the type as a comment for the reader of a difference.
struct Matrix {
    pair: Pair,
    types: Vec<(&'static str, &'static [&'static str])>,
}

impl Matrix {
    fn new() -> Matrix {
        let pair = Pair::new();
        pair.exec_both(OWN_TYPES);
        let mut types = MATRIX.to_vec();
        if pair.version() >= 14 {
            types.extend(MULTIRANGES);
        }
        let tables = types.iter().enumerate().map(|(i, (name, _))| {
            // The name shows in a failed comparison, the table's number alone would not say much.
            let shown: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
            format!("create table t{i}_{shown} (id int primary key, v {name}, beside int); create view t{i} as select * from t{i}_{shown}")
        });
        pair.exec_both(&tables.collect::<Vec<_>>().join(";"));
        pair.create_triggers();
        Matrix { pair, types }
    }

    /// Inserts all values, updates each to the next one of its type, and deletes some, all after `settings`.
    #[track_caller]
    fn replays_from_a_session_with(&self, settings: &str) {
        let mut master = self.pair.master();
        master.batch_execute(settings).unwrap();
        let mut step = |template: &dyn Fn(usize, &[&str]) -> String| {
            for (i, (name, values)) in self.types.iter().enumerate() {
                let sql = template(i, values);
                master.batch_execute(&sql).unwrap_or_else(|error| panic!("{name} with {settings}: {error:?}\n{sql}"));
            }
            drains_at_once(&self.pair);
        };
        step(&|i, values| {
            // A domain may forbid NULL; where it does, the first value comes twice.
            let null = if self.types[i].0 == "short_text" { values[0] } else { "null" };
            let rows = values.iter().copied().chain([null]).enumerate();
            let rows: Vec<String> = rows.map(|(id, value)| format!("({id}, {value}, 0)")).collect();
            rows.iter().map(|row| format!("insert into t{i} values {row};")).collect()
        });
        step(&|i, _| format!("update t{i} set beside = id where id % 2 = 0"));
        step(&|i, values| {
            let next = values.iter().cycle().skip(1);
            let updates =
                (0..=values.len()).zip(next).map(|(id, v)| format!("update t{i} set v = {v} where id = {id};"));
            updates.collect()
        });
        step(&|i, _| format!("update t{i} set id = id + 1000 where id = 0; delete from t{i} where id = 1"));
        step(&|i, _| format!("delete from t{i}"));
    }
}

#[test]
fn every_type_is_replayed_exactly() {
    Matrix::new().replays_from_a_session_with("");
}

#[test]
fn every_type_is_replayed_exactly_from_sessions_with_odd_date_styles() {
    let matrix = Matrix::new();
    for style in ["SQL, DMY", "SQL, MDY", "German", "Postgres, DMY"] {
        matrix.replays_from_a_session_with(&format!("set datestyle = '{style}'"));
    }
}

#[test]
fn every_type_is_replayed_exactly_from_sessions_with_odd_interval_styles() {
    let matrix = Matrix::new();
    for style in ["sql_standard", "postgres_verbose", "iso_8601"] {
        matrix.replays_from_a_session_with(&format!("set intervalstyle = '{style}'"));
    }
}

#[test]
fn every_type_is_replayed_exactly_from_sessions_with_few_float_digits_and_other_texts() {
    let matrix = Matrix::new();
    matrix
        .replays_from_a_session_with("set extra_float_digits = 0; set bytea_output = 'escape'; set xmlbinary = 'hex'");
    matrix.replays_from_a_session_with("set extra_float_digits = -15; set quote_all_identifiers = on");
}

#[test]
fn every_type_is_replayed_exactly_from_sessions_in_other_time_zones() {
    let matrix = Matrix::new();
    for zone in ["Asia/Kolkata", "Europe/Berlin", "<ODD>-03:30"] {
        matrix.replays_from_a_session_with(&format!("set timezone = '{zone}'"));
    }
}

#[test]
fn every_type_is_replayed_exactly_from_a_session_where_everything_is_odd() {
    // The parser's settings too: they change how a statement is read, so the values are written in ways that survive it.
    Matrix::new().replays_from_a_session_with(
        "set datestyle = 'German'; set intervalstyle = 'iso_8601'; set timezone = 'Pacific/Chatham';
         set extra_float_digits = 0; set bytea_output = 'escape'; set xmloption = 'content';
         set transform_null_equals = on; set array_nulls = on; set row_security = off; set lc_numeric = 'C'",
    );
}

#[test]
fn sessions_that_read_backslashes_as_escapes_are_replayed() {
    let pair = Pair::new();
    pair.exec_both("create table t (id int primary key, a text, b bytea)");
    pair.create_triggers();
    let mut master = pair.master();
    master.batch_execute("set standard_conforming_strings = off; set escape_string_warning = off").unwrap();
    master.batch_execute("insert into t values (1, 'a\\\\b\\n', '\\\\x00'), (2, '\\'', null)").unwrap();
    master.batch_execute("update t set a = a || '\\\\', b = '\\\\xff'").unwrap();
    drains(&pair);
    assert_eq!(pair.on_slave("select a from t where id = 1"), ["a\\b\n\\"]);
}

#[test]
fn null_and_the_null_of_json_are_two_things() {
    let pair = replays_each(
        "create table t (id int primary key, a jsonb, b json)",
        &[
            "insert into t values (1, 'null', 'null'), (2, null, null)",
            "update t set a = null, b = null where id = 1; update t set a = 'null', b = 'null' where id = 2",
        ],
    );
    assert_eq!(pair.on_slave("select id from t where a is null and b is null"), ["1"]);
}

#[test]
fn a_change_that_only_the_type_s_text_shows_is_replayed() {
    // Each pair is equal to the type's own operator, and yet not the same.
    let pair = replays_each(
        "create table t (id int primary key, n numeric, f float8, c char(5), j json, i interval, t timetz)",
        &[
            "insert into t values (1, 1.0, '0', 'a', '{\"a\":1}', '1 mon', '12:00+00')",
            "update t set n = 1.000, f = '-0'",
            "update t set j = '{\"a\": 1}', i = '30 days'",
        ],
    );
    assert_eq!(
        pair.on_slave("select n::text || ' ' || f || ' ' || j || ' ' || i from t"),
        ["1.000 -0 {\"a\": 1} 30 days"]
    );
}

#[test]
fn sessions_in_other_client_encodings_are_replayed() {
    let pair = Pair::new();
    pair.exec_both("create table \"täble\" (id int primary key, \"cölumn\" text)");
    pair.create_triggers();
    for (id, encoding) in [(1, "LATIN1"), (2, "WIN1252"), (3, "UTF8"), (4, "SQL_ASCII")] {
        let mut master = pair.master();
        // The names and values are spelled in ASCII: the client's driver writes UTF8 whatever the session says.
        let insert = format!("insert into U&\"t\\00e4ble\" values ({id}, chr(233) || U&'\\00df')");
        let update =
            format!("update U&\"t\\00e4ble\" set U&\"c\\00f6lumn\" = chr(252) || U&\"c\\00f6lumn\" where id = {id}");
        master.batch_execute(&format!("set client_encoding = '{encoding}'")).unwrap();
        master.batch_execute(&insert).unwrap();
        master.batch_execute(&update).unwrap();
    }
    drains(&pair);
    assert_eq!(pair.on_slave("select distinct \"cölumn\" from \"täble\""), ["üéß"]);
}

#[test]
fn a_latin1_master_replicates_to_a_utf8_slave() {
    let pair = Pair::with_master_encoding("LATIN1");
    pair.exec_both("create table \"Straße\" (\"Größe\" text primary key, a text, b bytea, j jsonb)");
    assert_eq!(pair.create_triggers(), ["created trigger on Straße (Größe)"]);
    pair.run("insert into \"Straße\" values ('é', 'ÄÖÜ ÿ', convert_to('é', 'LATIN1'), '{\"ä\": \"ö\"}'), ('ß', '', '', null)");
    pair.run("update \"Straße\" set a = 'ñ', \"Größe\" = 'É' where \"Größe\" = 'é'");
    drains(&pair);
    pair.run("update \"Straße\" set a = a || 'ø'; delete from \"Straße\" where \"Größe\" = 'ß'");
    drains(&pair);
    assert_eq!(pair.on_slave("select a || length(b) from \"Straße\""), ["ñø1"]);
}
