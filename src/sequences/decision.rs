//! Whether a sequence of the slave is to be set, and if not, why.
//!
//! - *Never backwards.* Somebody may have taken numbers on the slave, and a number must not be given twice. A sequence that
//!   falls stands behind if its number is higher. One that cycles gives its numbers again anyway, and has no order, so the slave's
//!   is made equal.
//! - *Numbers of their own.* Where several masters share a sequence, each takes other numbers: `py_log_interleave`. Then the
//!   increments differ, or, on a slave that is a master too, the remainders of the values.
//! - *Whose it is.* The owner of a sequence may give it any name. He must not move the sequence of somebody else on the slave, so
//!   it is set only if it belongs to the same column of a replicated table on both sides, or to roles of the same name, or the
//!   master's to a role that is trusted anyway.

use crate::sequences::sequence::{Place, Sequence};
use std::fmt;

/// Why a sequence is not set, although it may differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Why {
    Missing,
    Unreadable,
    NoRight,
    OtherIncrement,
    OtherNumbers,
    OtherOwner,
    OutOfBounds,
    /// Somebody has locked it. This is a matter of the moment.
    Busy,
    /// The server has refused it.
    Refused,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    Same,
    /// The slave's is further, and stays so.
    Ahead,
    Set(Place),
    Not(Why),
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Rules {
    /// Make it equal, also if the slave's is further.
    pub exact: bool,
    /// Whoever it belongs to.
    pub any_owner: bool,
    /// Wait for those that somebody has locked.
    pub waits: bool,
    /// The slave has a log of its own, and may be a master.
    pub slave_has_log: bool,
}

/// What to do about a sequence of the master. `is_replicated` says whether its table is, under the name that it has.
pub fn decide(
    master: &Sequence,
    slave: Option<&Sequence>,
    rules: Rules,
    is_replicated: impl FnOnce(&Sequence) -> bool,
) -> Decision {
    let Some(slave) = slave else { return Decision::Not(Why::Missing) };
    if master.increment != slave.increment {
        return Decision::Not(Why::OtherIncrement);
    }
    if !master.is_readable {
        return Decision::Not(Why::Unreadable);
    }
    if !slave.is_readable {
        return Decision::Not(Why::NoRight);
    }
    let Some((there, here)) = master.place.zip(slave.place) else { return Decision::Not(Why::Busy) };
    if there == here {
        return Decision::Same;
    }
    if rules.slave_has_log && (i128::from(there.value) - i128::from(here.value)) % i128::from(master.increment) != 0 {
        return Decision::Not(Why::OtherNumbers);
    }
    let is_circle = master.cycles && slave.cycles;
    if !rules.exact && !is_circle && is_further(here, there, master.increment) {
        return Decision::Ahead;
    }
    if !slave.is_settable {
        return Decision::Not(Why::NoRight);
    }
    if !(slave.lowest..=slave.highest).contains(&there.value) {
        return Decision::Not(Why::OutOfBounds);
    }
    if !(rules.any_owner || master.is_trusted || master.owner == slave.owner) {
        let is_same = master.column.as_ref().zip(slave.column.as_ref()).is_some_and(|(there, here)| there.is(here));
        if !is_same || !is_replicated(master) {
            return Decision::Not(Why::OtherOwner);
        }
    }
    Decision::Set(there)
}

fn is_further(one: Place, other: Place, increment: i64) -> bool {
    match one.value.cmp(&other.value) {
        std::cmp::Ordering::Equal => one.is_called && !other.is_called,
        order => order.is_gt() == (increment > 0),
    }
}

impl Why {
    /// The operator has to do something about it, or the sequence never follows.
    pub fn is_a_fault(self) -> bool {
        matches!(self, Why::Unreadable | Why::NoRight | Why::OtherOwner | Why::OutOfBounds | Why::Refused)
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Why::Missing => "the slave has no such sequence",
            Why::Unreadable => "DSN0's role may not read it",
            Why::NoRight => "DSN1's role may not read and set it",
            Why::OtherIncrement => "its increment differs on the slave",
            Why::OtherNumbers => "the slave is a master too, and its sequence gives other numbers",
            Why::OtherOwner => "it belongs to another role on the slave, and to no column of a replicated table",
            Why::OutOfBounds => "its number is beyond the bounds of the slave's sequence",
            Why::Busy => "somebody has locked it",
            Why::Refused => "the slave has refused its number",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::sequence::tests::at;
    use super::*;

    fn followed(master: &Sequence, slave: &Sequence) -> Decision {
        decide(master, Some(slave), Rules::default(), |_| false)
    }

    fn set(value: i64, is_called: bool) -> Decision {
        Decision::Set(Place { value, is_called })
    }

    #[test]
    fn a_sequence_never_goes_backwards() {
        assert_eq!(followed(&at(7, true), &at(1, false)), set(7, true));
        assert_eq!(followed(&at(7, true), &at(7, false)), set(7, true));
        assert_eq!(followed(&at(7, false), &at(7, true)), Decision::Ahead);
        assert_eq!(followed(&at(7, true), &at(8, false)), Decision::Ahead);
        assert_eq!(followed(&at(7, true), &at(7, true)), Decision::Same);
        let exact = Rules { exact: true, ..Rules::default() };
        assert_eq!(decide(&at(7, true), Some(&at(9, true)), exact, |_| false), set(7, true));
    }

    #[test]
    fn one_that_falls_is_behind_where_its_number_is_higher() {
        let falling = |value| Sequence { increment: -1, lowest: i64::MIN, ..at(value, true) };
        assert_eq!(followed(&falling(-7), &falling(-6)), set(-7, true));
        assert_eq!(followed(&falling(-6), &falling(-7)), Decision::Ahead);
        assert_eq!(followed(&falling(i64::MIN), &falling(i64::MAX)), set(i64::MIN, true));
    }

    #[test]
    fn one_that_cycles_is_made_equal_since_it_has_no_order() {
        let circle = |value| Sequence { cycles: true, highest: 10, ..at(value, true) };
        assert_eq!(followed(&circle(2), &circle(9)), set(2, true));
        assert_eq!(followed(&circle(9), &circle(2)), set(9, true));
        // Where only one of them does, a number might be given twice.
        assert_eq!(followed(&circle(2), &at(9, true)), Decision::Ahead);
    }

    #[test]
    fn numbers_of_their_own_are_left_alone() {
        let three = |value| Sequence { increment: 3, ..at(value, true) };
        assert_eq!(followed(&three(7), &at(1, true)), Decision::Not(Why::OtherIncrement));
        let masters = Rules { slave_has_log: true, ..Rules::default() };
        let decide = |there, here| decide(&three(there), Some(&three(here)), masters, |_| false);
        assert_eq!(decide(7, 2), Decision::Not(Why::OtherNumbers));
        assert_eq!(decide(7, 1), set(7, true));
        assert_eq!(decide(i64::MAX, i64::MIN), set(i64::MAX, true));
        assert_eq!(decide(i64::MAX, i64::MIN + 1), Decision::Not(Why::OtherNumbers));
    }

    #[test]
    fn what_cannot_be_is_told() {
        let not = |master: &Sequence, slave: &Sequence, why| assert_eq!(followed(master, slave), Decision::Not(why));
        assert_eq!(decide(&at(7, true), None, Rules::default(), |_| true), Decision::Not(Why::Missing));
        not(&Sequence { is_readable: false, place: None, ..at(0, true) }, &at(1, true), Why::Unreadable);
        not(&at(7, true), &Sequence { is_readable: false, place: None, ..at(0, true) }, Why::NoRight);
        not(&at(7, true), &Sequence { is_settable: false, ..at(1, true) }, Why::NoRight);
        not(&at(70_000, true), &Sequence { highest: 32_767, ..at(1, true) }, Why::OutOfBounds);
        not(&at(7, true), &Sequence { place: None, ..at(0, true) }, Why::Busy);
        // What need not be set need not be allowed.
        assert_eq!(followed(&at(7, true), &Sequence { is_settable: false, ..at(7, true) }), Decision::Same);
    }

    #[test]
    fn the_owner_of_a_sequence_does_not_move_that_of_another_role() {
        let slave = Sequence { owner: "ann".into(), ..at(1, true) };
        assert_eq!(followed(&at(7, true), &slave), Decision::Not(Why::OtherOwner));
        assert_eq!(followed(&Sequence { is_trusted: true, ..at(7, true) }, &slave), set(7, true));
        assert_eq!(followed(&Sequence { owner: "ann".into(), ..at(7, true) }, &slave), set(7, true));
        let any = Rules { any_owner: true, ..Rules::default() };
        assert_eq!(decide(&at(7, true), Some(&slave), any, |_| false), set(7, true));
    }
}
