//! Prints what compare and repair have found, for people and for programs.

use crate::base::error::{Error, ExitCode};
use crate::base::names::quote_ident;
use crate::base::phrases::counted;
use crate::base::shown::shown;
use crate::compare::comparison::{ComparePlan, Counts, Difference, DifferenceKind, LeftOutKind, LeftOutTable};
use crate::compare::repair::{ColumnDifference, NamedValues};
use crate::process::output::{Json, TextTable, json};

/// Longer values are cut, in the text for people and in the JSON. The databases have the whole values.
const LONGEST_SHOWN: usize = 60;
const LONGEST_VALUE: usize = 4_000;

#[derive(Default)]
pub struct CompareReport {
    pairs: Vec<(String, Vec<TableResult>)>,
}

/// The result for one table.
pub struct TableResult {
    table: String,
    state: State,
    counts: Counts,
    key: Vec<String>,
    shown: Vec<Shown>,
    lacks_columns: bool,
    /// A server has refused to read it.
    pub has_failed: bool,
    pub notes: Vec<String>,
    pub repaired: Option<RepairCounts>,
    pub statements: Vec<String>,
}

/// A row that differs, with its values on both sides.
pub struct Shown {
    pub row: Difference,
    pub values: Vec<ColumnDifference>,
    /// The values of the row, if no key names it.
    pub whole: NamedValues,
}

/// What repair has done to the rows that differ.
#[derive(Clone, Copy, Debug, Default)]
pub struct RepairCounts {
    pub written: u64,
    /// Left to the daemon, because they have a change on its way.
    pub in_flight: u64,
    pub refused: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Equal,
    /// Rows differ, but all of them have a change on its way.
    Pending,
    LeftOut,
    /// The table could not be compared although its rows should be on the slave, or rows of it were changing each time
    /// they were read.
    Unknown,
    Repaired,
    Different,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            State::Equal => "equal",
            State::Pending => "pending",
            State::LeftOut => "left out",
            State::Unknown => "unknown",
            State::Repaired => "repaired",
            State::Different => "different",
        }
    }
}

impl TableResult {
    /// A table that could not be compared.
    pub fn omitted(omission: LeftOutTable) -> TableResult {
        TableResult {
            table: omission.table,
            state: match omission.kind {
                LeftOutKind::ByDesign => State::LeftOut,
                LeftOutKind::NoKey => State::Unknown,
                LeftOutKind::NotOnSlave => State::Different,
            },
            counts: Counts::default(),
            key: Vec::new(),
            shown: Vec::new(),
            lacks_columns: false,
            has_failed: false,
            notes: vec![omission.reason],
            repaired: None,
            statements: Vec::new(),
        }
    }

    /// A server has refused to read it.
    pub fn failed(plan: &ComparePlan, error: &Error) -> TableResult {
        let mut result = TableResult::compared(plan, Counts::default(), Vec::new());
        result.state = State::Unknown;
        result.has_failed = true;
        result.notes.push(error.to_string());
        result.notes.extend(error.hint().map(str::to_string));
        result
    }

    pub fn compared(plan: &ComparePlan, counts: Counts, shown: Vec<Shown>) -> TableResult {
        let mut notes = plan.notes.clone();
        if counts.pending > 0 {
            let differ = if counts.pending == 1 { "differs and has" } else { "differ and have" };
            notes.push(format!("{} {differ} a change on its way", counted(counts.pending, "row")));
        }
        if counts.unsettled > 0 {
            let were = if counts.unsettled == 1 {
                "was changing each time it was"
            } else {
                "were changing each time they were"
            };
            notes.push(format!("{} {were} read", counted(counts.unsettled, "row")));
        }
        if !plan.lacking.is_empty() {
            let names: Vec<String> = plan.lacking.iter().map(|name| quote_ident(name)).collect();
            notes.push(format!("the slave lacks {}", names.join(", ")));
        }
        let state = match () {
            () if counts.differences() > 0 || !plan.lacking.is_empty() => State::Different,
            () if counts.unsettled > 0 => State::Unknown,
            () if counts.pending > 0 => State::Pending,
            () => State::Equal,
        };
        TableResult {
            table: plan.table.clone(),
            state,
            counts,
            key: plan.master.key.iter().map(|column| column.name.clone()).collect(),
            shown,
            lacks_columns: !plan.lacking.is_empty(),
            has_failed: false,
            notes,
            repaired: None,
            statements: Vec::new(),
        }
    }

    fn state(&self) -> State {
        match self.repaired {
            Some(repaired) if repaired.refused > 0 => State::Different,
            Some(repaired) if repaired.in_flight > 0 => State::Unknown,
            Some(_) if self.state == State::Different && !self.lacks_columns => State::Repaired,
            _ => self.state,
        }
    }

    fn json(&self) -> Json {
        let counts = &self.counts;
        let mut table = json!({
            "table": self.table,
            "state": self.state().name(),
            "rows": { "master": counts.rows.0, "slave": counts.rows.1 },
            "missing": counts.missing,
            "extra": counts.extra,
            "different": counts.different,
            "pending": counts.pending,
            "unsettled": counts.unsettled,
            "notes": self.notes,
            "differences": self.shown.iter().map(|shown| self.difference(shown)).collect::<Vec<_>>(),
        });
        if let Some(repaired) = self.repaired {
            table["repaired"] = repaired.written.into();
            table["in_flight"] = repaired.in_flight.into();
            table["refused"] = repaired.refused.into();
        }
        if !self.statements.is_empty() {
            table["statements"] = self.statements.clone().into();
        }
        table
    }

    fn difference(&self, shown: &Shown) -> Json {
        let value = |value: &Option<String>| value.as_deref().map(|text| cut(text, LONGEST_VALUE));
        if !shown.whole.is_empty() {
            let row: Json = shown.whole.iter().map(|(name, text)| (name.as_str(), json!(value(text)))).collect();
            return json!({ "row": row, "rows": shown.row.rows, "what": word(shown.row.kind), "columns": [] });
        }
        let key: Json =
            self.key.iter().zip(&shown.row.key).map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let columns: Vec<Json> = shown
            .values
            .iter()
            .map(|v| json!({ "column": v.column, "master": value(&v.master), "slave": value(&v.slave) }))
            .collect();
        json!({ "key": key, "what": word(shown.row.kind), "columns": columns })
    }

    fn lines(&self, lines: &mut Vec<String>) {
        for shown in &self.shown {
            let text = |value: &Option<String>| match value {
                Some(text) => format!("'{}'", cut(text, LONGEST_SHOWN)),
                None => "NULL".to_string(),
            };
            if !shown.whole.is_empty() {
                let row = shown.whole.iter().map(|(name, value)| format!("{}={}", quote_ident(name), text(value)));
                let row: Vec<String> = row.collect();
                let times = if shown.row.rows > 1 { format!(" ({} rows)", shown.row.rows) } else { String::new() };
                lines.push(format!("{} {} {}{times}", self.table, row.join(", "), word(shown.row.kind)));
                continue;
            }
            let key: Vec<String> = (self.key.iter().zip(&shown.row.key))
                .map(|(name, value)| format!("{}={}", quote_ident(name), cut(value, LONGEST_SHOWN)))
                .collect();
            let columns: Vec<String> = shown
                .values
                .iter()
                .map(|v| format!("{} is {}, on the slave {}", quote_ident(&v.column), text(&v.master), text(&v.slave)))
                .collect();
            let rest = if columns.is_empty() { String::new() } else { format!(": {}", columns.join("; ")) };
            lines.push(format!("{} {} {}{rest}", self.table, key.join(", "), word(shown.row.kind)));
        }
        let (differences, shown) = (self.counts.differences(), self.shown.iter().map(|shown| shown.row.rows).sum());
        if !self.shown.is_empty() && differences > shown {
            lines.push(format!("{} and {} more rows", self.table, differences - shown));
        }
    }
}

impl CompareReport {
    /// Starts the results of a pair.
    pub fn pair(&mut self, name: &str) {
        self.pairs.push((name.to_string(), Vec::new()));
    }

    pub fn add(&mut self, finding: TableResult) {
        self.pairs.last_mut().expect("a pair was named").1.push(finding);
    }

    pub fn exit_code(&self) -> ExitCode {
        let code = |finding: &TableResult| match finding.state() {
            State::Equal | State::Pending | State::LeftOut | State::Repaired => ExitCode::Success,
            State::Unknown => ExitCode::Warned,
            State::Different => ExitCode::Faulty,
        };
        self.findings().map(code).max_by_key(|code| *code as u8).unwrap_or(ExitCode::Success)
    }

    pub fn text(&self) -> String {
        let mut text = String::new();
        for (name, findings) in &self.pairs {
            if self.pairs.len() > 1 {
                text += &format!("{}:\n", shown(name));
            }
            let repaired = findings.iter().any(|finding| finding.repaired.is_some());
            let mut table = TextTable::new(if repaired {
                &["TABLE", "STATE", ">ROWS", ">MISSING", ">EXTRA", ">DIFFERENT", ">REPAIRED", "NOTES"]
            } else {
                &["TABLE", "STATE", ">ROWS", ">MISSING", ">EXTRA", ">DIFFERENT", "NOTES"]
            });
            for finding in findings {
                table.row(cells(finding, repaired));
            }
            text += &table.text();
            let mut lines = Vec::new();
            findings.iter().for_each(|finding| finding.lines(&mut lines));
            for line in lines {
                text += &format!("{}\n", shown(&line));
            }
        }
        text
    }

    pub fn json(&self) -> Json {
        let pairs: Vec<Json> = self
            .pairs
            .iter()
            .map(|(name, findings)| {
                json!({ "pair": name, "tables": findings.iter().map(TableResult::json).collect::<Vec<_>>() })
            })
            .collect();
        let is_equal =
            |finding: &TableResult| matches!(finding.state(), State::Equal | State::LeftOut | State::Repaired);
        json!({ "equal": self.findings().all(is_equal), "pairs": pairs })
    }

    fn findings(&self) -> impl Iterator<Item = &TableResult> {
        self.pairs.iter().flat_map(|(_, findings)| findings)
    }
}

fn cells(finding: &TableResult, repaired: bool) -> Vec<String> {
    let counts = &finding.counts;
    let mut cells = vec![finding.table.clone(), finding.state().name().to_string()];
    if matches!(finding.state, State::LeftOut) || finding.key.is_empty() {
        cells.extend(std::iter::repeat_n(String::new(), if repaired { 5 } else { 4 }));
    } else {
        let numbers = [counts.rows.0, counts.missing, counts.extra, counts.different];
        cells.extend(numbers.map(|number| number.to_string()));
        if repaired {
            cells.push(finding.repaired.map_or(String::new(), |repaired| repaired.written.to_string()));
        }
    }
    let mut notes = finding.notes.clone();
    if let Some(left) = finding.repaired.map(|repaired| repaired.in_flight).filter(|left| *left > 0) {
        let have = if left == 1 { "has" } else { "have" };
        let rows = counted(left, "row");
        notes.push(format!("{rows} {have} changes that the daemon has yet to replay: run repair again after that"));
    }
    cells.push(notes.join("; "));
    cells
}

fn word(what: DifferenceKind) -> &'static str {
    match what {
        DifferenceKind::Missing => "missing",
        DifferenceKind::Extra => "extra",
        DifferenceKind::Different => "different",
    }
}

fn cut(text: &str, longest: usize) -> String {
    match text.char_indices().nth(longest) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_string(),
    }
}
