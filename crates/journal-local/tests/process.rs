//! The threads of the journal and other processes: full queues, two owners of a directory, a kill.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod support;

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use kapell_journal::{AppendError, Batch, Journal as _};
use kapell_journal_local::fault::FaultDisk;
use kapell_journal_local::{DirError, Driver, LocalJournal, Options, RealDisk};
use kapell_model::{Epoch, Seq, ShardId};
use support::*;

const DIR: &str = "KAPELL_TEST_JOURNAL_DIR";

fn open_dir(dir: &Path) -> Result<LocalJournal, DirError> {
    let disk = RealDisk::open(dir)?;
    Ok(LocalJournal::open(Arc::new(disk), options(), Driver::Thread).unwrap())
}

/// This program again, doing only the named test, with the directory in its environment.
fn child(test: &str, dir: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--ignored", "--nocapture"]).env(DIR, dir);
    command
}

#[test]
#[ignore = "only as the second process of another test"]
fn second_process() {
    let dir = std::env::var(DIR).unwrap();
    let error = RealDisk::open(Path::new(&dir)).expect_err("the first process holds it");
    println!("{error}");
}

#[test]
fn a_second_process_is_refused_by_name_of_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open_dir(dir.path()).unwrap();
    let output = child("second_process", dir.path()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}");
    let expected = format!("data directory {} is in use by another process", dir.path().display());
    assert!(text.contains(&expected), "{text}");
    assert!(matches!(RealDisk::open(dir.path()), Err(DirError::InUse { .. })), "nor twice in one process");
    drop(journal);
    assert!(open_dir(dir.path()).is_ok(), "free again");
}

#[test]
#[ignore = "only as the process that is killed"]
fn appends_until_it_is_killed() {
    let journal = Arc::new(open_dir(Path::new(&std::env::var(DIR).unwrap())).unwrap());
    let epoch = futures::executor::block_on(journal.epoch(ShardId(0))).unwrap().0 + 1;
    let mut seq = acquire(&journal, 0, epoch).unwrap().last.0 + 1;
    let mut out = std::io::stdout();
    loop {
        append(&journal, (0, epoch), seq, records(0, seq, 3, 200)).unwrap();
        seq += 3;
        writeln!(out, "acked {}", seq - 1).unwrap();
        out.flush().unwrap();
    }
}

#[test]
fn a_kill_loses_nothing_that_was_answered() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..3 {
        let mut killed =
            child("appends_until_it_is_killed", dir.path()).stdout(Stdio::piped()).spawn().unwrap();
        let mut acked = 0;
        let mut lines = BufReader::new(killed.stdout.take().unwrap()).lines();
        for line in lines.by_ref() {
            if let Some((_, number)) = line.unwrap().split_once("acked ") {
                acked = number.parse().unwrap();
                if acked % 300 == 0 {
                    break;
                }
            }
        }
        killed.kill().unwrap();
        for line in lines {
            if let Some(number) = line.unwrap().strip_prefix("acked ") {
                acked = number.parse().unwrap_or(acked);
            }
        }
        killed.wait().unwrap();
        assert!(acked > 0);
        let journal = open_dir(dir.path()).unwrap();
        assert!(assert_whole(&journal, 0, 0, 200) >= acked);
    }
}

fn batch(shard: u16, first: u64) -> Batch {
    let records = records(shard, first, 1, 1000);
    Batch { shard: ShardId(shard), epoch: Epoch(1), first: Seq(first), records }
}

#[test]
fn a_full_queue_turns_away_with_a_hint_and_closes_the_shard() {
    let retry_after = Duration::from_millis(7);
    let options = Options { queue_bytes_max: 20_000, retry_after, ..options() };
    let journal = LocalJournal::open(Arc::new(FaultDisk::new()), options, Driver::Thread).unwrap();
    acquire(&journal, 0, 1).unwrap();
    acquire(&journal, 1, 1).unwrap();
    // A callback that breaks the rule and blocks: the writer stands still.
    let (release, released) = mpsc::channel::<()>();
    let (standing, stands) = mpsc::channel();
    journal.append(
        batch(1, 1),
        Box::new(move |_| {
            standing.send(()).unwrap();
            released.recv().unwrap();
        }),
    );
    stands.recv().unwrap();
    let (done, answers) = mpsc::channel();
    for seq in 1..=40 {
        let done = done.clone();
        journal.append(batch(0, seq), Box::new(move |outcome| done.send((seq, outcome)).unwrap()));
    }
    let (first_refused, refusal) = answers.recv().unwrap();
    let AppendError::Unavailable { retry_after: hint, reason } = refusal.unwrap_err() else { panic!() };
    assert_eq!((hint, reason.contains("full")), (retry_after, true));
    assert!((10..30).contains(&first_refused), "{first_refused}");
    for seq in first_refused + 1..=40 {
        assert_eq!(answers.recv().unwrap(), (seq, Err(AppendError::Poisoned)));
    }
    release.send(()).unwrap();
    for seq in 1..first_refused {
        assert_eq!(answers.recv().unwrap(), (seq, Ok(())));
    }
    assert_eq!(
        append(&journal, (0, 1), first_refused, vec![record(0, first_refused, 1000)]),
        Err(AppendError::Poisoned)
    );
    assert_eq!(acquire(&journal, 0, 1).unwrap().last, Seq(first_refused - 1));
    append(&journal, (0, 1), first_refused, vec![record(0, first_refused, 1000)]).unwrap();
    assert_eq!(assert_whole(&journal, 0, 0, 1000), first_refused);
    append(&journal, (1, 1), 2, vec![record(1, 2, 1000)]).unwrap();
}

#[test]
fn a_dropped_journal_has_answered_everything() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open_dir(dir.path()).unwrap();
    acquire(&journal, 0, 1).unwrap();
    let (done, answers) = mpsc::channel();
    for seq in 1..=500 {
        let done = done.clone();
        journal.append(batch(0, seq), Box::new(move |outcome| done.send((seq, outcome)).unwrap()));
    }
    drop((journal, done));
    let all: Vec<_> = answers.iter().collect();
    assert_eq!(all, (1..=500).map(|seq| (seq, Ok(()))).collect::<Vec<_>>());
    assert_eq!(assert_whole(&open_dir(dir.path()).unwrap(), 0, 0, 1000), 500);
}

#[test]
fn a_callback_may_append_and_may_drop_the_journal() {
    for driver in [Driver::Inline, Driver::Thread] {
        let journal = Arc::new(LocalJournal::open(Arc::new(FaultDisk::new()), options(), driver).unwrap());
        acquire(&journal, 0, 1).unwrap();
        let (done, answer) = mpsc::channel();
        let again = Arc::clone(&journal);
        journal.append(
            batch(0, 1),
            Box::new(move |first| {
                let inner = Arc::clone(&again);
                again.append(
                    batch(0, 2),
                    Box::new(move |second| {
                        drop(inner);
                        done.send((first, second)).unwrap();
                    }),
                );
            }),
        );
        drop(journal);
        assert_eq!(answer.recv_timeout(Duration::from_secs(10)).unwrap(), (Ok(()), Ok(())));
    }
}
