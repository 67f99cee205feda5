//! Decides what is worth a mail, and when. A problem gets a mail at once, then one every hour, and one when it is over.
//! Warnings are collected, many in one mail. The functions do no I/O, and the caller passes the time.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The time between two mails about a problem that lasts.
pub const REPEAT_INTERVAL: Duration = Duration::from_secs(3600);

/// If a problem comes and goes, this many of its beginnings within `REPEAT_INTERVAL` get a mail, and their ends too.
/// Further ones are only counted.
const MAX_EPISODES: usize = 3;

/// How many problems are remembered. Beyond that, the one that failed longest ago is forgotten.
const MAX_PROBLEMS: usize = 64;

/// How long warnings are collected for one mail. The first mail comes soon. If warnings go on, the next ones come less
/// and less often.
const COLLECTING_TIMES: [Duration; 4] =
    [Duration::from_secs(5), Duration::from_secs(60), Duration::from_secs(600), Duration::from_secs(3600)];

/// How many texts a batch keeps. Further ones are only counted.
const KEPT_TEXTS: usize = 10;

/// How often something has failed, and since how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailureCount {
    pub failures: u64,
    pub duration: Duration,
}

/// The problems of one pair. Two failures with equal `P` are the same problem.
#[derive(Debug)]
pub struct ProblemLog<P> {
    entries: Vec<Entry<P>>,
}

/// The warnings for one mail: the first few texts, and how many there were.
#[derive(Debug, PartialEq, Eq)]
pub struct NoticeBatch {
    pub first: Vec<String>,
    pub count: u64,
}

/// Collects warnings until it is time for a mail.
#[derive(Debug, Default)]
pub struct NoticeQueue {
    first: Vec<String>,
    count: u64,
    due: Option<Instant>,
    /// When the last batch was taken, and how many have been taken without a long pause between them.
    taken: Option<(Instant, usize)>,
}

#[derive(Debug)]
struct Entry<P> {
    problem: P,
    /// The text of the last failure.
    what: String,
    is_open: bool,
    /// Whether a mail has been sent about the current episode.
    is_reported: bool,
    failures: u64,
    since: Instant,
    last: Instant,
    /// The times of the last mails, `MAX_EPISODES` at most.
    mails: VecDeque<Instant>,
}

impl<P> Default for ProblemLog<P> {
    fn default() -> Self {
        ProblemLog { entries: Vec::new() }
    }
}

impl<P: PartialEq> ProblemLog<P> {
    /// Notes a failure. Returns Some if it is time for a mail about it.
    pub fn failed(&mut self, problem: P, what: &str, now: Instant) -> Option<FailureCount> {
        let entry = self.entry(problem, now);
        if entry.failures == 0 {
            entry.since = now;
        }
        entry.failures += 1;
        entry.last = now;
        entry.is_open = true;
        entry.what = what.to_string();
        let recent = entry.mails.iter().filter(|mail| now.duration_since(**mail) < REPEAT_INTERVAL).count();
        let is_due = if entry.is_reported {
            entry.mails.back().is_none_or(|mail| now.duration_since(*mail) >= REPEAT_INTERVAL)
        } else {
            recent < MAX_EPISODES
        };
        if !is_due {
            return None;
        }
        entry.is_reported = true;
        entry.mails.push_back(now);
        if entry.mails.len() > MAX_EPISODES {
            entry.mails.pop_front();
        }
        Some(FailureCount { failures: entry.failures, duration: now.duration_since(entry.since) })
    }

    /// Notes that everything works. Returns the text of each problem that was reported and is over now.
    pub fn over(&mut self, now: Instant) -> Vec<(String, FailureCount)> {
        let mut over = Vec::new();
        for entry in self.entries.iter_mut().filter(|entry| entry.is_open) {
            entry.is_open = false;
            if std::mem::take(&mut entry.is_reported) {
                let failures = std::mem::take(&mut entry.failures);
                over.push((entry.what.clone(), FailureCount { failures, duration: now.duration_since(entry.since) }));
            }
        }
        over
    }

    fn entry(&mut self, problem: P, now: Instant) -> &mut Entry<P> {
        self.entries.retain(|entry| entry.is_open || now.duration_since(entry.last) < REPEAT_INTERVAL);
        let index = self.entries.iter().position(|entry| entry.problem == problem).unwrap_or_else(|| {
            if self.entries.len() == MAX_PROBLEMS {
                let oldest = (0..MAX_PROBLEMS).min_by_key(|index| self.entries[*index].last).expect("it is full");
                self.entries.swap_remove(oldest);
            }
            self.entries.push(Entry {
                problem,
                what: String::new(),
                is_open: false,
                is_reported: false,
                failures: 0,
                since: now,
                last: now,
                mails: VecDeque::new(),
            });
            self.entries.len() - 1
        });
        &mut self.entries[index]
    }
}

impl NoticeQueue {
    pub fn add(&mut self, text: String, now: Instant) {
        self.count += 1;
        if self.first.len() < KEPT_TEXTS {
            self.first.push(text);
        }
        if self.due.is_none() {
            let in_a_row = match self.taken {
                Some((last, times)) if now.duration_since(last) < REPEAT_INTERVAL => times,
                _ => 0,
            };
            self.taken = self.taken.map(|(last, _)| (last, in_a_row));
            self.due = Some(now + COLLECTING_TIMES[in_a_row.min(COLLECTING_TIMES.len() - 1)]);
        }
    }

    /// When it is time for a mail. None if nothing was collected.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Takes everything that was collected.
    pub fn take(&mut self, now: Instant) -> Option<NoticeBatch> {
        self.due.take()?;
        self.taken = Some((now, self.taken.map_or(0, |(_, times)| times) + 1));
        Some(NoticeBatch { first: std::mem::take(&mut self.first), count: std::mem::take(&mut self.count) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    /// Fails once a minute from `from` on, `times` times. Returns the minutes with a mail, and the count in each.
    fn reported(problems: &mut ProblemLog<&str>, start: Instant, from: u32, times: u32) -> Vec<(u32, u64)> {
        let minutes = from..from + times;
        minutes
            .filter_map(|m| problems.failed("a", "a!", start + MINUTE * m).map(|count| (m, count.failures)))
            .collect()
    }

    #[test]
    fn a_problem_that_lasts_is_reported_at_once_and_then_hourly_with_a_count() {
        let mut problems = ProblemLog::default();
        assert_eq!(reported(&mut problems, Instant::now(), 0, 200), [(0, 1), (60, 61), (120, 121), (180, 181)]);
    }

    #[test]
    fn a_reported_problem_is_reported_once_more_when_it_is_over() {
        let (mut problems, start) = (ProblemLog::default(), Instant::now());
        reported(&mut problems, start, 0, 5);
        let over = problems.over(start + MINUTE * 7);
        assert_eq!(over, [("a!".to_string(), FailureCount { failures: 5, duration: MINUTE * 7 })]);
        assert!(problems.over(start + MINUTE * 8).is_empty());
        assert_eq!(reported(&mut problems, start, 9, 3), [(9, 1)], "it is a new problem");
    }

    #[test]
    fn different_problems_are_reported_separately() {
        let (mut problems, now) = (ProblemLog::default(), Instant::now());
        assert!(problems.failed(("slave", 1), "", now).is_some());
        assert!(problems.failed(("slave", 2), "", now).is_some());
        assert!(problems.failed(("slave", 1), "in other words", now).is_none());
        assert_eq!(problems.over(now).len(), 2);
    }

    #[test]
    fn a_problem_that_comes_and_goes_is_reported_three_times_an_hour() {
        let (mut problems, start) = (ProblemLog::default(), Instant::now());
        let mut mails = Vec::new();
        for minute in 0..=60 {
            let now = start + MINUTE * minute;
            mails.extend(problems.failed("a", "", now).map(|count| (minute, count.failures)));
            mails.extend(problems.over(now).into_iter().map(|(_, count)| (minute, count.failures)));
        }
        assert_eq!(mails, [(0, 1), (0, 1), (1, 1), (1, 1), (2, 1), (2, 1), (60, 58), (60, 58)]);
    }

    #[test]
    fn the_number_of_problems_is_limited() {
        let (mut problems, start) = (ProblemLog::default(), Instant::now());
        for id in 0..1000 {
            assert!(problems.failed(id, "", start + Duration::from_secs(id)).is_some());
        }
        assert_eq!(problems.entries.len(), MAX_PROBLEMS);
        assert!(problems.failed(999, "", start + MINUTE * 17).is_none());
        problems.over(start + MINUTE * 17);
        problems.failed(5000, "", start + MINUTE * 100);
        assert_eq!(problems.entries.len(), 1, "what is over is forgotten after an hour");
    }

    #[test]
    fn texts_of_a_short_time_are_one_batch_with_the_first_few() {
        let (mut queue, start) = (NoticeQueue::default(), Instant::now());
        assert_eq!((queue.due(), queue.take(start)), (None, None));
        for number in 0..1000 {
            queue.add(number.to_string(), start + Duration::from_millis(number));
        }
        assert_eq!(queue.due(), Some(start + COLLECTING_TIMES[0]));
        let batch = queue.take(start + COLLECTING_TIMES[0]).unwrap();
        assert_eq!((batch.first.len(), batch.first[9].as_str(), batch.count), (10, "9", 1000));
        assert_eq!(queue.due(), None);
    }

    #[test]
    fn many_texts_are_reported_less_and_less_often_until_they_end() {
        let (mut queue, start) = (NoticeQueue::default(), Instant::now());
        let mut reported = Vec::new();
        for second in 0..7200 {
            let now = start + Duration::from_secs(second);
            queue.add(String::new(), now);
            if queue.due().is_some_and(|due| due <= now) {
                reported.push((second, queue.take(now).unwrap().count));
            }
        }
        assert_eq!(reported, [(5, 6), (66, 61), (667, 601), (4268, 3601)]);
        let quiet = start + Duration::from_secs(7200) + REPEAT_INTERVAL;
        queue.take(quiet);
        let later = quiet + REPEAT_INTERVAL;
        queue.add(String::new(), later);
        assert_eq!(queue.due(), Some(later + COLLECTING_TIMES[0]));
    }
}
