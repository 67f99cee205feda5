//! The setting CONFLICT: what the daemon does when a change does not find the row on the slave that it expects.
//!
//! ```text
//! CONFLICT = newest(changed_at), public.orders skip, insert_exists error, public.orders delete_missing error
//! ```
//!
//! Commas separate the rules. A rule may name a table, a kind of conflict, both or neither, and then says what to do.
//! The last rule that matches wins.

use crate::config::names::{Word, parts, words};
use std::fmt;

/// The kinds of conflict. The names are those of PostgreSQL 18 where it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conflict {
    /// An INSERT of a key, or of another unique value, that a row on the slave already has.
    InsertExists,
    /// The row is there, but columns that the UPDATE changes do not have the values that they had on the master.
    UpdateDiffers,
    /// An UPDATE to a unique value that another row already has.
    UpdateExists,
    /// The row of an UPDATE is missing.
    UpdateMissing,
    /// The row of a DELETE is there, but not as it was on the master. Checked only where a rule names this kind.
    DeleteDiffers,
    /// The row of a DELETE is missing.
    DeleteMissing,
}

/// What to do about a conflict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConflictAction {
    /// The master wins, and the daemon logs a warning.
    Warn,
    /// The slave wins.
    Skip,
    /// The change fails: see ON_ERROR.
    Error,
    /// The row with the greater value in this column wins.
    Newest(String),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConflictPolicies(Vec<Rule>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    /// Schema and name.
    table: Option<(String, String)>,
    conflict: Option<Conflict>,
    action: ConflictAction,
}

const CONFLICTS: [Conflict; 6] = [
    Conflict::InsertExists,
    Conflict::UpdateDiffers,
    Conflict::UpdateExists,
    Conflict::UpdateMissing,
    Conflict::DeleteDiffers,
    Conflict::DeleteMissing,
];

const ACTIONS: &str = "warn, skip, error or newest(COLUMN)";

impl ConflictPolicies {
    pub fn parse(text: &str) -> Result<ConflictPolicies, String> {
        let rules = words(text)?;
        let rules =
            rules.split(|word| *word == Word::Mark(',')).map(Rule::parse).collect::<Result<Vec<Rule>, String>>()?;
        Ok(ConflictPolicies(rules))
    }

    /// What to do about this conflict on this table; `relation` is the table's name in the log. `insert_exists` and
    /// `update_exists` are errors unless a rule names them or has another action than `warn`. With `warn` the first
    /// would overwrite a whole row of the slave, and for the second nothing useful could be done.
    pub fn of(&self, relation: &str, conflict: Conflict) -> ConflictAction {
        let table = parts(relation);
        let fits = |rule: &&Rule| {
            (rule.table.is_none() || rule.table == table) && rule.conflict.is_none_or(|named| named == conflict)
        };
        let exists = !matches!(
            conflict,
            Conflict::UpdateDiffers | Conflict::UpdateMissing | Conflict::DeleteMissing | Conflict::DeleteDiffers
        );
        match self.0.iter().rfind(fits) {
            Some(Rule { conflict: None, action: ConflictAction::Warn, .. }) | None if exists => ConflictAction::Error,
            Some(rule) => rule.action.clone(),
            None => ConflictAction::Warn,
        }
    }

    /// Whether the daemon compares a row with the master's before it deletes it. That costs one more query for each
    /// row.
    pub fn watches_deletes(&self, relation: &str) -> bool {
        let is_named = |rule: &Rule| rule.conflict == Some(Conflict::DeleteDiffers);
        self.0.iter().any(is_named) && {
            let table = parts(relation);
            self.0.iter().any(|rule| is_named(rule) && (rule.table.is_none() || rule.table == table))
        }
    }
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Conflict::InsertExists => "insert_exists",
            Conflict::UpdateDiffers => "update_differs",
            Conflict::UpdateExists => "update_exists",
            Conflict::UpdateMissing => "update_missing",
            Conflict::DeleteDiffers => "delete_differs",
            Conflict::DeleteMissing => "delete_missing",
        })
    }
}

impl Rule {
    fn parse(words: &[Word]) -> Result<Rule, String> {
        let (front, action) = match words {
            [] => return Err("there is no rule between two commas, or before the first".to_string()),
            [front @ .., Word::Name(newest, false), Word::Mark('('), Word::Name(column, _), Word::Mark(')')]
                if newest == "newest" =>
            {
                (front, ConflictAction::Newest(column.clone()))
            }
            [front @ .., Word::Name(word, false)] => match word.as_str() {
                "warn" => (front, ConflictAction::Warn),
                "skip" => (front, ConflictAction::Skip),
                "error" => (front, ConflictAction::Error),
                _ => return Err(format!("a rule ends with {ACTIONS}, not with {word}")),
            },
            _ => return Err(format!("a rule ends with {ACTIONS}")),
        };
        let find = |word: &String| CONFLICTS.into_iter().find(|conflict| conflict.to_string() == *word);
        let (front, conflict) = match front {
            [front @ .., Word::Name(word, false)] if find(word).is_some() => (front, find(word)),
            _ => (front, None),
        };
        let table = match front {
            [] => None,
            [Word::Name(schema, _), Word::Mark('.'), Word::Name(name, _)] => Some((schema.clone(), name.clone())),
            [Word::Name(name, _)] => Some(("public".to_string(), name.clone())),
            _ => {
                let known: Vec<String> = CONFLICTS.iter().map(Conflict::to_string).collect();
                return Err(format!("a rule is [TABLE] [CONFLICT] ACTION, with a conflict of {}", known.join(", ")));
            }
        };
        Ok(Rule { table, conflict, action })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_rule_that_fits_wins() {
        let policies = ConflictPolicies::parse(
            r#"newest(changed_at), Orders skip, insert_exists error, "My.S"."Ta""b" delete_missing warn"#,
        )
        .unwrap();
        let of = |relation, conflict| policies.of(relation, conflict);
        assert_eq!(of("public.t", Conflict::UpdateDiffers), ConflictAction::Newest("changed_at".into()));
        assert_eq!(of("public.orders", Conflict::UpdateDiffers), ConflictAction::Skip);
        assert_eq!(of("public.orders", Conflict::InsertExists), ConflictAction::Error);
        assert_eq!(of("other.orders", Conflict::UpdateMissing), ConflictAction::Newest("changed_at".into()));
        assert_eq!(of(r#""My.S"."Ta""b""#, Conflict::DeleteMissing), ConflictAction::Warn);
        // PostgreSQL reads a name without quotes in the same way.
        let policies = ConflictPolicies::parse("ÄAb skip").unwrap();
        assert_eq!(policies.of("public.\"Äab\"", Conflict::UpdateDiffers), ConflictAction::Skip);
    }

    #[test]
    fn without_rules_only_the_exists_conflicts_are_errors() {
        for policies in [ConflictPolicies::default(), ConflictPolicies::parse("warn").unwrap()] {
            assert_eq!(policies.of("public.t", Conflict::UpdateDiffers), ConflictAction::Warn);
            assert_eq!(policies.of("public.t", Conflict::InsertExists), ConflictAction::Error);
            assert!(!policies.watches_deletes("public.t"));
        }
        let named = ConflictPolicies::parse("insert_exists warn, public.t delete_differs skip").unwrap();
        assert_eq!(named.of("public.t", Conflict::InsertExists), ConflictAction::Warn);
        assert!(named.watches_deletes("public.t") && !named.watches_deletes("public.u"));
    }

    #[test]
    fn a_rule_that_makes_no_sense_is_refused() {
        let error = |text| ConflictPolicies::parse(text).unwrap_err();
        assert!(error("sikp").contains("not with sikp"));
        assert!(error("warn,").contains("no rule between two commas"));
        assert!(error("newest").contains("newest(COLUMN)"));
        assert!(error("t insert_exits skip").contains("insert_exists, update_differs"));
        assert!(error("\"t skip").contains("no end"));
    }
}
