//! What is worth a mail, and when: the same problem once, then hourly, and once more when it is over; unusual changes
//! many to a mail. Pure: the caller says what time it is.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A problem that lasts is told again after this time.
pub const AGAIN: Duration = Duration::from_secs(3600);

/// A problem that comes and goes is told this often within `AGAIN`, with its end each time; then it is only counted.
const EPISODES: usize = 3;

/// Problems remembered. Beyond that the one that was silent for longest is forgotten.
const MAX_PROBLEMS: usize = 64;

/// How long changes are collected for one mail: the first is told soon, and a flood less and less often.
const COLLECTING: [Duration; 4] =
    [Duration::from_secs(5), Duration::from_secs(60), Duration::from_secs(600), Duration::from_secs(3600)];

/// Texts that a heap keeps; further ones are only counted.
const KEPT: usize = 10;

/// How often something failed, and since when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally {
    pub failures: u64,
    pub lasting: Duration,
}

/// The problems of one pair; `P` is what makes two failures the same problem.
#[derive(Debug)]
pub struct ProblemLog<P> {
    cases: Vec<Case<P>>,
}

/// Texts to be told together: the first few, and how many there were.
#[derive(Debug, PartialEq, Eq)]
pub struct NoticeBatch {
    pub first: Vec<String>,
    pub count: u64,
}

/// Collects texts until it is time to tell them.
#[derive(Debug, Default)]
pub struct NoticeQueue {
    first: Vec<String>,
    count: u64,
    due: Option<Instant>,
    /// When the last heap was told, and how many have been told in a row.
    told: Option<(Instant, usize)>,
}

#[derive(Debug)]
struct Case<P> {
    problem: P,
    /// In words, as it was when it failed last.
    what: String,
    is_open: bool,
    /// Whether the present episode has been told.
    is_told: bool,
    failures: u64,
    since: Instant,
    last: Instant,
    /// When it was told, at most `EPISODES` times back.
    mails: VecDeque<Instant>,
}

impl<P> Default for ProblemLog<P> {
    fn default() -> Self {
        ProblemLog { cases: Vec::new() }
    }
}

impl<P: PartialEq> ProblemLog<P> {
    /// A problem occurred, or went on. Some when that is to be told.
    pub fn failed(&mut self, problem: P, what: &str, now: Instant) -> Option<Tally> {
        let case = self.case(problem, now);
        if case.failures == 0 {
            case.since = now;
        }
        case.failures += 1;
        case.last = now;
        case.is_open = true;
        case.what = what.to_string();
        let recent = case.mails.iter().filter(|mail| now.duration_since(**mail) < AGAIN).count();
        let is_due = if case.is_told {
            case.mails.back().is_none_or(|mail| now.duration_since(*mail) >= AGAIN)
        } else {
            recent < EPISODES
        };
        if !is_due {
            return None;
        }
        case.is_told = true;
        case.mails.push_back(now);
        if case.mails.len() > EPISODES {
            case.mails.pop_front();
        }
        Some(Tally { failures: case.failures, lasting: now.duration_since(case.since) })
    }

    /// Everything works. Returns what had been told and is over now, in words.
    pub fn over(&mut self, now: Instant) -> Vec<(String, Tally)> {
        let mut over = Vec::new();
        for case in self.cases.iter_mut().filter(|case| case.is_open) {
            case.is_open = false;
            if std::mem::take(&mut case.is_told) {
                let failures = std::mem::take(&mut case.failures);
                over.push((case.what.clone(), Tally { failures, lasting: now.duration_since(case.since) }));
            }
        }
        over
    }

    fn case(&mut self, problem: P, now: Instant) -> &mut Case<P> {
        self.cases.retain(|case| case.is_open || now.duration_since(case.last) < AGAIN);
        let index = self.cases.iter().position(|case| case.problem == problem).unwrap_or_else(|| {
            if self.cases.len() == MAX_PROBLEMS {
                let silent = (0..MAX_PROBLEMS).min_by_key(|index| self.cases[*index].last).expect("it is full");
                self.cases.swap_remove(silent);
            }
            self.cases.push(Case {
                problem,
                what: String::new(),
                is_open: false,
                is_told: false,
                failures: 0,
                since: now,
                last: now,
                mails: VecDeque::new(),
            });
            self.cases.len() - 1
        });
        &mut self.cases[index]
    }
}

impl NoticeQueue {
    pub fn add(&mut self, text: String, now: Instant) {
        self.count += 1;
        if self.first.len() < KEPT {
            self.first.push(text);
        }
        if self.due.is_none() {
            let in_a_row = match self.told {
                Some((last, times)) if now.duration_since(last) < AGAIN => times,
                _ => 0,
            };
            self.told = self.told.map(|(last, _)| (last, in_a_row));
            self.due = Some(now + COLLECTING[in_a_row.min(COLLECTING.len() - 1)]);
        }
    }

    /// When it is to be told; none when it is empty.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Everything collected, which is then forgotten.
    pub fn take(&mut self, now: Instant) -> Option<NoticeBatch> {
        self.due.take()?;
        self.told = Some((now, self.told.map_or(0, |(_, times)| times) + 1));
        Some(NoticeBatch { first: std::mem::take(&mut self.first), count: std::mem::take(&mut self.count) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    /// Fails once a minute from `from` on, `times` times; the minutes at which that was told, with the count.
    fn told(problems: &mut ProblemLog<&str>, start: Instant, from: u32, times: u32) -> Vec<(u32, u64)> {
        let minutes = from..from + times;
        minutes
            .filter_map(|m| problems.failed("a", "a!", start + MINUTE * m).map(|tally| (m, tally.failures)))
            .collect()
    }

    #[test]
    fn a_problem_that_lasts_is_told_at_once_and_then_hourly_with_a_count() {
        let mut problems = ProblemLog::default();
        assert_eq!(told(&mut problems, Instant::now(), 0, 200), [(0, 1), (60, 61), (120, 121), (180, 181)]);
    }

    #[test]
    fn what_was_told_is_told_once_more_when_it_is_over() {
        let (mut problems, start) = (ProblemLog::default(), Instant::now());
        told(&mut problems, start, 0, 5);
        let over = problems.over(start + MINUTE * 7);
        assert_eq!(over, [("a!".to_string(), Tally { failures: 5, lasting: MINUTE * 7 })]);
        assert!(problems.over(start + MINUTE * 8).is_empty());
        assert_eq!(told(&mut problems, start, 9, 3), [(9, 1)], "it is news again");
    }

    #[test]
    fn different_problems_are_told_apart() {
        let (mut problems, now) = (ProblemLog::default(), Instant::now());
        assert!(problems.failed(("slave", 1), "", now).is_some());
        assert!(problems.failed(("slave", 2), "", now).is_some());
        assert!(problems.failed(("slave", 1), "in other words", now).is_none());
        assert_eq!(problems.over(now).len(), 2);
    }

    #[test]
    fn a_problem_that_comes_and_goes_is_told_three_times_an_hour() {
        let (mut problems, start) = (ProblemLog::default(), Instant::now());
        let mut mails = Vec::new();
        for minute in 0..=60 {
            let now = start + MINUTE * minute;
            mails.extend(problems.failed("a", "", now).map(|tally| (minute, tally.failures)));
            mails.extend(problems.over(now).into_iter().map(|(_, tally)| (minute, tally.failures)));
        }
        assert_eq!(mails, [(0, 1), (0, 1), (1, 1), (1, 1), (2, 1), (2, 1), (60, 58), (60, 58)]);
    }

    #[test]
    fn the_ledger_is_bounded() {
        let (mut problems, start) = (ProblemLog::default(), Instant::now());
        for id in 0..1000 {
            assert!(problems.failed(id, "", start + Duration::from_secs(id)).is_some());
        }
        assert_eq!(problems.cases.len(), MAX_PROBLEMS);
        assert!(problems.failed(999, "", start + MINUTE * 17).is_none());
        problems.over(start + MINUTE * 17);
        problems.failed(5000, "", start + MINUTE * 100);
        assert_eq!(problems.cases.len(), 1, "what is over is forgotten after an hour");
    }

    #[test]
    fn texts_of_a_short_time_are_one_heap_with_the_first_few() {
        let (mut pile, start) = (NoticeQueue::default(), Instant::now());
        assert_eq!((pile.due(), pile.take(start)), (None, None));
        for number in 0..1000 {
            pile.add(number.to_string(), start + Duration::from_millis(number));
        }
        assert_eq!(pile.due(), Some(start + COLLECTING[0]));
        let heap = pile.take(start + COLLECTING[0]).unwrap();
        assert_eq!((heap.first.len(), heap.first[9].as_str(), heap.count), (10, "9", 1000));
        assert_eq!(pile.due(), None);
    }

    #[test]
    fn a_flood_of_texts_is_told_less_and_less_often_until_it_ends() {
        let (mut pile, start) = (NoticeQueue::default(), Instant::now());
        let mut told = Vec::new();
        for second in 0..7200 {
            let now = start + Duration::from_secs(second);
            pile.add(String::new(), now);
            if pile.due().is_some_and(|due| due <= now) {
                told.push((second, pile.take(now).unwrap().count));
            }
        }
        assert_eq!(told, [(5, 6), (66, 61), (667, 601), (4268, 3601)]);
        let quiet = start + Duration::from_secs(7200) + AGAIN;
        pile.take(quiet);
        let later = quiet + AGAIN;
        pile.add(String::new(), later);
        assert_eq!(pile.due(), Some(later + COLLECTING[0]));
    }
}
