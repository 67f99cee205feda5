use super::*;
use crate::config::dsn::Dsn;
use crate::pair::replicator::Milestone;
use std::sync::atomic::{AtomicUsize, Ordering};

fn config(name: &str) -> Config {
    let dsn = Dsn::parse("host=x").unwrap();
    Config { name: name.to_string(), ..Config::for_pair(dsn.clone(), dsn) }
}

fn failure() -> Error {
    Error::new(Kind::Internal, None, "test", "it is meant to fail")
}

/// Runs the supervisor with `task` for two pairs, "a" and "b". It gets `stops` signals, with the pause `apart` between
/// them.
fn supervised(task: Task, stops: usize, apart: Duration) -> (Vec<Failure>, Duration) {
    let (sender, events) = channel();
    let signals = sender.clone();
    thread::spawn(move || {
        for _ in 0..stops {
            thread::sleep(apart);
            let _ = signals.send(Event::Stop);
        }
    });
    let start = Instant::now();
    let loaded = LoadedConfigs { configs: vec![config("a"), config("b")], ..LoadedConfigs::default() };
    (supervise(loaded, &task, &sender, &events, None), start.elapsed())
}

const SOON: Duration = Duration::from_millis(20);

#[test]
fn a_pair_that_panics_does_not_stop_the_other() {
    let finished = Arc::new(AtomicUsize::new(0));
    let count = finished.clone();
    let (failures, _) = supervised(
        Arc::new(move |config, _, _| {
            if config.name == "a" {
                panic!("one of ours");
            }
            thread::sleep(SOON);
            count.fetch_add(1, Ordering::SeqCst);
            Ok(())
        }),
        0,
        SOON,
    );
    assert_eq!(finished.load(Ordering::SeqCst), 1);
    assert_eq!(failures.len(), 1);
    assert_eq!((failures[0].name.as_str(), failures[0].error.kind()), ("a", Kind::Internal));
}

#[test]
fn the_first_signal_lets_the_pairs_end_and_their_errors_do_not_count() {
    let (failures, took) = supervised(
        Arc::new(|_, control, _| {
            control.pause(Duration::from_secs(60));
            Err(failure())
        }),
        1,
        SOON,
    );
    assert!(failures.is_empty());
    assert!(took < FINISH_TIME, "{took:?}");
}

#[test]
fn a_pair_that_does_not_end_is_cancelled_after_a_second() {
    let (_, took) = supervised(
        Arc::new(|_, control, _| {
            let (cancel, cancelled) = channel();
            control.set_cancellers(vec![Box::new(move || cancel.send(()).unwrap())]);
            cancelled.recv_timeout(Duration::from_secs(60)).unwrap();
            Ok(())
        }),
        1,
        SOON,
    );
    assert!(FINISH_TIME < took && took < FINISH_TIME + CANCEL_TIME, "{took:?}");
}

#[test]
fn the_process_does_not_wait_longer_than_two_seconds_for_a_pair() {
    let (_, took) = supervised(Arc::new(|_, _, _| loop_forever()), 1, SOON);
    assert!(took < Duration::from_secs(3), "{took:?}");
}

#[test]
fn a_second_signal_ends_at_once() {
    let (_, took) = supervised(Arc::new(|_, _, _| loop_forever()), 2, SOON);
    assert!(took < FINISH_TIME, "{took:?}");
}

fn loop_forever() -> Result<()> {
    loop {
        thread::park();
    }
}

#[test]
fn the_two_dsn_command_line_gives_up_only_before_the_first_connection() {
    let result =
        keep_running(&config("a"), &Control::default(), &Outbox::default(), true, &|_, _| (), |_, _, _| Err(failure()));
    assert!(result.is_err());

    let runs = AtomicUsize::new(0);
    let result = keep_running(
        &config("a"),
        &Control::default(),
        &Outbox::default(),
        true,
        &|_, _| (),
        |_, control, progress| {
            if runs.fetch_add(1, Ordering::SeqCst) == 0 {
                progress(Milestone::Connected);
            } else {
                control.stop();
            }
            Err(failure())
        },
    );
    assert!(result.is_ok());
    assert_eq!(runs.load(Ordering::SeqCst), 2);
}

#[test]
fn a_pair_of_a_config_file_is_tried_again_even_after_a_panic() {
    let runs = AtomicUsize::new(0);
    let result =
        keep_running(&config("a"), &Control::default(), &Outbox::default(), false, &|_, _| (), |_, control, _| {
            if runs.fetch_add(1, Ordering::SeqCst) == 0 {
                panic!("one of ours");
            }
            control.stop();
            Ok(())
        });
    assert!(result.is_ok());
    assert_eq!(runs.load(Ordering::SeqCst), 2);
}
