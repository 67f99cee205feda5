use super::*;
use crate::base::names::{LogId, Txid};
use crate::replay::table::Column;

/// `a` is the key; the slave computes `n` itself.
fn table() -> Table {
    let column = |name: &str| Column {
        name: name.into(),
        base_type: "text".into(),
        full_type: "text".into(),
        array_type: "text[]".into(),
        operators: Some("pg_catalog".into()),
        is_cast: false,
        generated: name == "n",
        identity_always: false,
        is_probe: false,
    };
    let columns = ["a", "b", "c", "n"].map(column).to_vec();
    let mut table = Table::new(1, String::new(), ("public", "t"), false, columns, &[vec!["a".into()]]);
    table.allow_sets(&[vec!["a"]]);
    table
}

/// `I 1 x y`, `U 1 x y > 1 z y`, `D 1 z y`: values of a, b, c.
fn changes(script: &[&str]) -> Vec<Change> {
    let row = |values: &str| -> Row {
        let values = values.split_whitespace().map(|value| (value != "-").then_some(value));
        ["a", "b", "c"].map(String::from).into_iter().zip(values).collect()
    };
    let change = |(n, line): (usize, &&str)| {
        let (event, values) = line.split_once(' ').unwrap();
        let (old, new) = match event {
            "I" => ("", values),
            "D" => (values, ""),
            _ => values.split_once('>').unwrap(),
        };
        Change {
            id: LogId(n as i64),
            txid: Txid(1),
            event: Event::from_letter(event).unwrap(),
            relation: "public.t".into(),
            old: row(old),
            new: row(new),
            sql: String::new(),
            origin: None,
        }
    };
    script.iter().enumerate().map(change).collect()
}

/// Each group as its event, the columns that it sets, those that it compares, and its rows.
fn shown(script: &[&str]) -> Vec<String> {
    let (table, changes) = (table(), changes(script));
    let show = |group: &Group| {
        let rows: Vec<String> =
            group.rows.iter().map(|row| row.iter().map(|v| v.unwrap_or("-")).collect::<Vec<_>>().join(" ")).collect();
        let SetShape { event, written, guards, .. } = &group.shape;
        let rows_exist = if group.rows_exist { "" } else { " of nothing" };
        format!("{event:?}{rows_exist} {written:?} {guards:?}: {}", rows.join(", "))
    };
    effect(&changes, |_| Some(&table)).0.iter().flat_map(|effect| &effect.groups).map(show).collect()
}

#[test]
fn changes_of_one_shape_are_one_group_and_deletes_go_first() {
    assert_eq!(
        shown(&["I 1 x y", "U 2 x y > 2 z y", "I 3 - y", "D 4 x y", "U 5 x y > 5 - y"]),
        ["Delete [] []: 4", "Update [1] [1]: z 2 x, - 5 x", "Insert [0, 1, 2] []: 1 x y, 3 - y"]
    );
}

#[test]
fn a_row_gets_its_last_values_and_its_first_old_values_are_compared() {
    assert_eq!(shown(&["U 1 x y > 1 z y", "U 1 z y > 1 w v"]), ["Update [1, 2] [1, 2]: w v 1 x y"]);
    assert_eq!(shown(&["I 1 x y", "U 1 x y > 1 z y"]), ["Insert [0, 1, 2] []: 1 z y"]);
    assert_eq!(shown(&["U 1 x y > 1 z y", "D 1 z y"]), ["Delete [] [1]: 1 x"]);
    assert_eq!(shown(&["D 1 x y", "I 1 a b", "U 1 a b > 1 c b"]), ["Delete [] []: 1", "Insert [0, 1, 2] []: 1 c b"]);
    assert_eq!(shown(&["D 1 x y", "I 1 a b", "D 1 a b"]), ["Delete [] []: 1"]);
}

#[test]
fn a_row_that_is_inserted_and_deleted_has_to_be_missing() {
    assert_eq!(shown(&["I 1 x y", "D 1 x y"]), ["Delete of nothing [] []: 1"]);
    assert_eq!(shown(&["I 1 x y", "D 1 x y", "I 1 z z"]), ["Insert [0, 1, 2] []: 1 z z"]);
}

#[test]
fn what_does_not_fit_is_replayed_change_by_change() {
    for script in [
        &["U 1 x y > 2 x y"][..],
        &["I 1 x y", "I 1 x y"],
        &["D 1 x y", "U 1 x y > 1 z y"],
        &["U 1 x y > 1 z y", "U 1 other y > 1 z v", "U 1 x y > 1 q y"],
        &["I 1 x y", "D 1 other y"],
        &["I - x y"],
    ] {
        assert_eq!(shown(script), [""; 0], "{script:?}");
    }
}
