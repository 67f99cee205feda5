use super::*;

fn said(identity: &str, rows: &[(Role, i64, &str)]) -> Said {
    let rows = rows.iter().map(|(role, epoch, peer)| RoleRow {
        role: *role,
        pair: "p".into(),
        epoch: *epoch,
        peer: peer.to_string(),
        peer_at: "host=b".into(),
        since: String::new(),
        order: 1,
        is_over: false,
        token: None,
        has_replayed: false,
    });
    Said { identity: identity.into(), rows: rows.collect(), is_bare: false }
}

/// What both sides say, and what follows: whether DSN1 is the master, and the state.
fn decided(first: Option<(Role, i64)>, second: Option<(Role, i64)>) -> Option<(bool, State)> {
    let rows = |row: Option<(Role, i64)>, peer| row.map(|(role, epoch)| (role, epoch, peer));
    let first = said("a", rows(first, "b").as_slice());
    let second = said("b", rows(second, "a").as_slice());
    decide(&first, &second).ok().map(|roles| (roles.is_reversed, roles.state))
}

#[test]
fn every_row_of_the_table_in_both_orders() {
    use Role::{Former, Master, Slave};
    use State::{Between, Settled};
    assert_eq!(decided(None, None), Some((false, Settled)));
    let table = [
        (Some((Master, 3)), Some((Slave, 3)), Some((false, Settled))),
        (Some((Master, 3)), Some((Slave, 1)), Some((false, Settled))),
        (Some((Master, 1)), Some((Slave, 3)), Some((false, Settled))),
        (Some((Master, 3)), Some((Master, 2)), Some((false, State::Former))),
        (Some((Master, 3)), None, Some((false, State::Former))),
        (Some((Master, 3)), Some((Former, 3)), Some((false, State::Former))),
        (Some((Master, 3)), Some((Master, 3)), None),
        (Some((Slave, 3)), Some((Slave, 2)), Some((false, Between))),
        (Some((Slave, 2)), None, Some((false, Between))),
        (Some((Slave, 3)), Some((Slave, 3)), None),
    ];
    for (first, second, wanted) in table {
        assert_eq!(decided(first, second), wanted, "{first:?} {second:?}");
        let turned = wanted.map(|(is_reversed, state)| (!is_reversed, state));
        assert_eq!(decided(second, first), turned, "{second:?} {first:?}");
    }
}

#[test]
fn a_slave_that_has_replayed_in_its_epoch_had_a_master() {
    let mut first = said("a", &[(Role::Slave, 2, "b")]);
    first.rows[0].has_replayed = true;
    let roles = decide(&first, &said("b", &[])).unwrap();
    assert_eq!((roles.is_reversed, roles.state), (true, State::Lost));
}

#[test]
fn a_slave_that_was_left_behind_is_refused_and_the_pair_that_moved_is_not() {
    let first = said("a", &[(Role::Moved, 2, "b")]);
    assert!(decide(&first, &said("c", &[])).is_err());
    let mut first = said("a", &[(Role::Moved, 2, "b"), (Role::Slave, 2, "b")]);
    first.rows[0].pair = "q".into();
    assert!(decide(&first, &said("b", &[(Role::Master, 2, "a")])).unwrap().is_reversed);
    // Epochs of different pairs say nothing about which row is later.
    for (order, is_refused) in [(1, false), (3, true)] {
        let mut first = said("a", &[(Role::Moved, 2, "c"), (Role::Master, 5, "b")]);
        (first.rows[0].pair, first.rows[0].order, first.rows[1].order) = ("q".into(), order, 2);
        let second = said("b", &[(Role::Slave, 5, "a")]);
        assert_eq!(decide(&first, &second).is_err(), is_refused);
        assert_eq!(decide(&second, &first).is_err(), is_refused);
    }
}

#[test]
fn one_database_has_no_other_side() {
    let said = said("a", &[(Role::Master, 3, "b")]);
    assert!(decide(&said, &said).unwrap_err().to_string().contains("the same database"));
}

#[test]
fn a_database_without_a_log_may_have_the_later_rows() {
    let (mut first, mut second) = (said("a", &[(Role::Slave, 2, "b")]), said("b", &[]));
    (first.rows[0].has_replayed, second.is_bare) = (true, true);
    assert_eq!(decide(&first, &second).unwrap().state, State::Uninstalled);
    assert_eq!(decide(&second, &first).unwrap().state, State::Uninstalled);
}

#[test]
fn other_pairs_of_the_same_databases_say_nothing() {
    let (mut first, second) = (said("a", &[(Role::Slave, 2, "x")]), said("b", &[]));
    first.rows[0].pair = "other".into();
    assert_eq!(decide(&first, &second).unwrap(), Roles::original());
    first.rows[0].role = Role::Master;
    assert_eq!(decide(&first, &second).unwrap(), Roles::original());
    assert!(decide(&second, &first).is_err(), "a master is not made the slave of an unknown database");
}

#[test]
fn one_side_alone_tells_the_direction_if_it_knows_one_pair() {
    assert!(guess(&said("b", &[(Role::Master, 2, "a")]), true));
    assert!(!guess(&said("a", &[(Role::Master, 3, "b")]), false));
    assert!(guess(&said("a", &[(Role::Slave, 2, "b")]), false));
    assert!(!guess(&said("a", &[]), false));
}
