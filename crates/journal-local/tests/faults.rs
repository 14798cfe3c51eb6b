//! What each kind of failing disk may and may not do to the journal.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod support;

use std::collections::BTreeSet;

use kapell_journal::{AcquireError, AppendError, Journal as _, ReadError};
use kapell_journal_local::fault::{Crash, Fault, FaultDisk};
use kapell_journal_local::{Disk as _, LocalJournal, OpenError};
use kapell_model::{Epoch, RunId, Seq, ShardId};
use support::*;

const BYTES: usize = 300;

/// A journal with shard 0 acquired and `count` records, one append each.
fn with_records(disk: &FaultDisk, count: u64) -> LocalJournal {
    let journal = open(disk);
    acquire(&journal, 0, 1).unwrap();
    for seq in 1..=count {
        append(&journal, (0, 1), seq, records(0, seq, 1, BYTES)).unwrap();
    }
    journal
}

fn end_of_writing(content: &[u8]) -> usize {
    content.iter().rposition(|byte| *byte != 0).unwrap() + 1
}

/// A disk that holds the same durable files.
fn copy(disk: &FaultDisk) -> FaultDisk {
    let other = FaultDisk::new();
    for name in disk.list().unwrap() {
        other.put(&name, disk.content(&name).unwrap());
    }
    other
}

fn is_corrupt(error: &OpenError) -> Option<(&str, u64)> {
    match error {
        OpenError::Read { source: ReadError::Corrupt { segment, offset, .. }, .. } => {
            Some((segment, *offset))
        }
        OpenError::Read { .. } | OpenError::TooNew { .. } | OpenError::Write { .. } => None,
    }
}

#[test]
fn a_write_torn_at_any_byte_is_cut_and_nothing_else() {
    let disk = FaultDisk::new();
    let journal = with_records(&disk, 3);
    let name = last_segment(&disk);
    let before = end_of_writing(&disk.content(&name).unwrap());
    append(&journal, (0, 1), 4, records(0, 4, 3, BYTES)).unwrap();
    drop(journal);
    let whole = disk.content(&name).unwrap();
    let after = end_of_writing(&whole);
    assert!(after - before > 3 * BYTES);
    for kept in before..after {
        let torn = copy(&disk);
        let mut content = whole.clone();
        content[kept..].fill(0);
        torn.put(&name, content);
        assert_eq!(assert_whole(&open(&torn), 0, 0, BYTES), 3, "torn at {kept}");
    }
    assert_eq!(assert_whole(&open(&disk), 0, 0, BYTES), 6);
}

#[test]
fn pages_of_a_torn_write_may_reach_the_disk_in_any_order() {
    let mut cut = 0;
    for seed in 0..300 {
        let disk = FaultDisk::new();
        let journal = with_records(&disk, 2);
        disk.crash_at(disk.operations() + 1);
        let outcome = append(&journal, (0, 1), 3, records(0, 3, 3, 3000));
        assert!(matches!(outcome, Err(AppendError::Unavailable { .. })));
        drop(journal);
        disk.crash(Crash::Random { seed });
        let journal = open(&disk);
        let last = acquire(&journal, 0, 2).unwrap().last.0;
        assert!(last == 2 || last == 5, "seed {seed}: a group is whole or not there, not {last}");
        cut += u32::from(last == 2);
        append(&journal, (0, 2), last + 1, records(0, last + 1, 1, BYTES)).unwrap();
        let read = read(&journal, 0, 0).unwrap();
        assert_eq!(read.len() as u64, last + 1);
    }
    assert!(cut > 100, "the disk did tear: {cut}");
}

#[test]
fn a_short_write_is_finished() {
    let disk = FaultDisk::new();
    let journal = with_records(&disk, 1);
    for (seq, bytes) in (2..).zip([1, 7, 48, 300]) {
        disk.inject(Fault::ShortWrite { bytes });
        append(&journal, (0, 1), seq, records(0, seq, 1, BYTES)).unwrap();
    }
    drop(journal);
    disk.crash(Crash::LoseUnsynced);
    assert_eq!(assert_whole(&open(&disk), 0, 0, BYTES), 5);
}

#[test]
fn a_flipped_bit_is_reported_where_it_is_or_does_no_harm() {
    let disk = FaultDisk::new();
    drop(with_records(&disk, 6));
    let name = last_segment(&disk);
    let end = end_of_writing(&disk.content(&name).unwrap());
    let (mut found, mut harmless) = (0, 0);
    for at in (0..64).chain((64..4096).step_by(251)).chain(4096..end) {
        let flipped = copy(&disk);
        assert!(flipped.flip_bit(&name, at as u64, (at % 8) as u32));
        match try_open(&flipped) {
            // Padding and the unused part of the header page mean nothing.
            Ok(journal) => {
                assert_eq!(assert_whole(&journal, 0, 0, BYTES), 6, "byte {at} was lost in silence");
                harmless += 1;
            }
            Err(OpenError::TooNew { .. }) => assert!((8..12).contains(&at)),
            Err(error) => {
                let (segment, offset) = is_corrupt(&error).expect("corrupt");
                assert_eq!(segment, name);
                assert!(offset <= at as u64 && at as u64 - offset < 600, "byte {at} reported at {offset}");
                found += 1;
            }
        }
    }
    assert!(found > 6 * BYTES, "found {found}, harmless {harmless}");
}

#[test]
fn a_sector_that_vanished_before_the_last_group_is_damage() {
    let disk = FaultDisk::new();
    let journal = with_records(&disk, 8);
    let name = last_segment(&disk);
    let before_last = end_of_writing(&disk.content(&name).unwrap());
    append(&journal, (0, 1), 9, records(0, 9, 1, BYTES)).unwrap();
    drop(journal);
    // It looks torn, but what follows could only be written after it was flushed.
    for sector in (4096..before_last - 512).step_by(64) {
        let lost = copy(&disk);
        let mut content = disk.content(&name).unwrap();
        content[sector..sector + 512].fill(0);
        lost.put(&name, content);
        let error = try_open(&lost).map(|_| ()).unwrap_err();
        let (segment, offset) = is_corrupt(&error).expect("corrupt");
        assert!(segment == name && offset <= sector as u64 + 512, "sector at {sector} reported at {offset}");
    }
}

#[test]
fn a_flipped_bit_in_a_sealed_segment_is_found_when_it_is_read() {
    let disk = FaultDisk::new();
    let journal = with_records(&disk, 100);
    // The first one was left before it held anything.
    let oldest = segments(&disk)[1].clone();
    assert!(segments(&disk).len() > 3);
    let content = disk.content(&oldest).unwrap();
    let at = content.windows(13).position(|text| text == b"shard 0 seq 9").unwrap() as u64;
    assert!(disk.flip_bit(&oldest, at, 0));
    let run = RunId::new(ShardId(0), 9 % 5);
    drop(journal);
    for _ in 0..2 {
        let journal = open(&disk);
        for error in [
            read(&journal, 0, 0).unwrap_err(),
            read(&journal, 0, 8).unwrap_err(),
            futures::executor::block_on(journal.history(run)).unwrap_err(),
        ] {
            let ReadError::Corrupt { segment, offset, .. } = error else { panic!("{error}") };
            assert_eq!(segment, oldest);
            assert!(offset < at && at - offset < 100);
        }
        drop(journal);
        // The same without the index.
        drop(disk.remove(&oldest.replace(".log", ".idx")));
    }
}

#[test]
fn a_segment_that_is_missing_or_cut_is_damage() {
    let disk = FaultDisk::new();
    drop(with_records(&disk, 100));
    let all = segments(&disk);
    let gap = copy(&disk);
    gap.remove(&all[2]).unwrap();
    assert_eq!(is_corrupt(&try_open(&gap).err().unwrap()), Some((all[2].as_str(), 0)));

    let first = copy(&disk);
    first.remove(&all[0]).unwrap();
    first.remove(&all[1]).unwrap();
    assert!(is_corrupt(&try_open(&first).err().unwrap()).is_some(), "no checkpoint covers what is gone");

    let cut = copy(&disk);
    let mut content = cut.content(&all[1]).unwrap();
    content.truncate(SEGMENT_BYTES as usize / 2);
    cut.put(&all[1], content);
    let journal = open(&cut);
    assert!(matches!(read(&journal, 0, 0), Err(ReadError::Corrupt { .. })));
}

#[test]
fn an_index_that_is_missing_or_damaged_is_rebuilt() {
    let disk = FaultDisk::new();
    drop(with_records(&disk, 100));
    let index = segments(&disk)[1].replace(".log", ".idx");
    let good = disk.content(&index).unwrap();
    let run = RunId::new(ShardId(0), 3);
    let expected = futures::executor::block_on(open(&disk).history(run)).unwrap();
    assert_eq!(expected.len(), 20);
    for at in (0..good.len()).step_by(197) {
        assert!(disk.flip_bit(&index, at as u64, 3));
        let journal = open(&disk);
        assert_eq!(futures::executor::block_on(journal.history(run)).unwrap(), expected);
        assert_eq!(assert_whole(&journal, 0, 0, BYTES), 100);
        disk.put(&index, good.clone());
    }
    disk.remove(&index).unwrap();
    let journal = open(&disk);
    assert_eq!(assert_whole(&journal, 0, 0, BYTES), 100);
    assert_eq!(disk.content(&index).unwrap(), good, "the rebuilt index is the one that was");
}

#[test]
fn no_space_closes_the_shards_until_there_is_room() {
    let disk = FaultDisk::new();
    let journal = with_records(&disk, 3);
    acquire(&journal, 1, 1).unwrap();
    disk.set_capacity_bytes(Some(3 * SEGMENT_BYTES));
    let mut seq = 4;
    let failed = loop {
        match append(&journal, (0, 1), seq, records(0, seq, 1, BYTES)) {
            Ok(()) => seq += 1,
            Err(error) => break error,
        }
    };
    assert!(
        matches!(&failed, AppendError::Unavailable { reason, .. } if reason.contains("space")),
        "{failed}"
    );
    assert_eq!(append(&journal, (1, 1), 1, records(1, 1, 1, BYTES)), Err(AppendError::Poisoned));
    let still = acquire(&journal, 0, 2);
    assert!(matches!(still, Err(AcquireError::Read(ReadError::Unavailable { .. }))), "{still:?}");
    assert_eq!(assert_whole(&journal, 0, 0, BYTES), seq - 1, "reading goes on");
    disk.set_capacity_bytes(None);
    assert_eq!(acquire(&journal, 0, 2).unwrap().last, Seq(seq - 1));
    append(&journal, (0, 2), seq, records(0, seq, 1, BYTES)).unwrap();
    drop(journal);
    disk.crash(Crash::LoseUnsynced);
    assert_eq!(assert_whole(&open(&disk), 0, 0, BYTES), seq);
}

#[test]
fn an_error_on_write_closes_all_shards_and_loses_nothing_that_was_answered() {
    let disk = FaultDisk::new();
    let journal = with_records(&disk, 3);
    acquire(&journal, 1, 1).unwrap();
    let failing = last_segment(&disk);
    disk.inject(Fault::WriteError);
    let failed = append(&journal, (0, 1), 4, records(0, 4, 1, BYTES));
    assert!(matches!(failed, Err(AppendError::Unavailable { .. })));
    assert_eq!(append(&journal, (0, 1), 4, records(0, 4, 1, BYTES)), Err(AppendError::Poisoned));
    assert_eq!(append(&journal, (1, 1), 1, records(1, 1, 1, BYTES)), Err(AppendError::Poisoned));
    assert_eq!(checkpoint(&journal, 0, 1, 3), Err(AppendError::Poisoned));
    assert_eq!(acquire(&journal, 0, 2).unwrap().last, Seq(3));
    assert_ne!(last_segment(&disk), failing);
    append(&journal, (0, 2), 4, records(0, 4, 1, BYTES)).unwrap();
    assert_eq!(append(&journal, (1, 1), 1, records(1, 1, 1, BYTES)), Err(AppendError::Poisoned));
    assert_eq!(acquire(&journal, 1, 1).unwrap().last, Seq(0));
    append(&journal, (1, 1), 1, records(1, 1, 1, BYTES)).unwrap();
    drop(journal);
    disk.crash(Crash::LoseUnsynced);
    assert_eq!(assert_whole(&open(&disk), 0, 0, BYTES), 4);
}

#[test]
fn after_a_failed_flush_the_segment_is_never_trusted_again() {
    for how in [Crash::LoseUnsynced, Crash::KeepUnsynced, Crash::Random { seed: 7 }] {
        let disk = FaultDisk::new();
        let journal = with_records(&disk, 3);
        let failing = last_segment(&disk);
        disk.inject_on(".log", Fault::SyncError);
        let failed = append(&journal, (0, 1), 4, records(0, 4, 1, 99));
        assert!(matches!(failed, Err(AppendError::Unavailable { .. })));
        // The page cache still shows the record that never reached the disk, and a second flush would say that all is well.
        let shown = disk.content(&failing).unwrap();
        assert!(shown.windows(13).any(|text| text == b"shard 0 seq 4"));
        assert_eq!(append(&journal, (0, 1), 4, records(0, 4, 1, BYTES)), Err(AppendError::Poisoned));
        assert_eq!(acquire(&journal, 0, 2).unwrap().last, Seq(3), "what was not answered is not there");
        append(&journal, (0, 2), 4, records(0, 4, 1, BYTES)).unwrap();
        assert_eq!(disk.content(&failing).unwrap(), shown, "the failed segment was not written again");
        assert_eq!(assert_whole(&journal, 0, 0, BYTES), 4);
        drop(journal);
        disk.crash(how);
        assert_eq!(assert_whole(&open(&disk), 0, 0, BYTES), 4, "{how:?}");
    }
}

#[test]
fn a_failed_flush_then_a_restart_then_a_power_cut_leaves_no_hole() {
    let disk = FaultDisk::new();
    let journal = with_records(&disk, 3);
    disk.inject_on(".log", Fault::SyncError);
    assert!(append(&journal, (0, 1), 4, records(0, 4, 1, BYTES)).is_err());
    // The process dies, the machine does not: the next one reads record 4 from the page cache.
    drop(journal);
    let journal = open(&disk);
    let last = acquire(&journal, 0, 2).unwrap().last.0;
    append(&journal, (0, 2), last + 1, records(0, last + 1, 1, BYTES)).unwrap();
    drop(journal);
    disk.crash(Crash::LoseUnsynced);
    assert_eq!(assert_whole(&open(&disk), 0, 0, BYTES), last + 1);
}

#[test]
fn an_error_while_a_segment_begins_is_survived() {
    for fault in
        [Fault::DirSyncError, Fault::RenameError, Fault::SyncError, Fault::WriteError, Fault::NoSpace]
    {
        for how in [Crash::LoseUnsynced, Crash::KeepUnsynced] {
            let disk = FaultDisk::new();
            let journal = with_records(&disk, 1);
            let (mut seq, mut epoch) = (2, 1);
            let begun = segments(&disk).len();
            let (mut failures, mut injected) = (0, false);
            while segments(&disk).len() < begun + 3 {
                let written = end_of_writing(&disk.content(&last_segment(&disk)).unwrap());
                if !injected && written + 450 > SEGMENT_BYTES as usize {
                    disk.inject(fault);
                    injected = true;
                }
                match append(&journal, (0, epoch), seq, records(0, seq, 1, BYTES)) {
                    Ok(()) => seq += 1,
                    Err(AppendError::Unavailable { .. }) => {
                        failures += 1;
                        epoch += 1;
                        assert_eq!(acquire(&journal, 0, epoch).unwrap().last, Seq(seq - 1), "{fault:?}");
                    }
                    Err(other) => panic!("{other}"),
                }
            }
            assert!(failures > 0, "{fault:?}");
            drop(journal);
            disk.crash(how);
            assert_eq!(assert_whole(&open(&disk), 0, 0, BYTES), seq - 1, "{fault:?} {how:?}");
        }
    }
}

#[test]
fn a_checkpoint_that_fails_leaves_the_last_one_and_the_shard_open() {
    for fault in
        [Fault::WriteError, Fault::NoSpace, Fault::SyncError, Fault::RenameError, Fault::DirSyncError]
    {
        for how in [Crash::LoseUnsynced, Crash::KeepUnsynced] {
            let disk = FaultDisk::new();
            let journal = with_records(&disk, 9);
            checkpoint(&journal, 0, 1, 3).unwrap();
            disk.inject(fault);
            let failed = checkpoint(&journal, 0, 1, 5);
            assert!(matches!(failed, Err(AppendError::Unavailable { .. })), "{fault:?}");
            assert_eq!(images(&journal, 0).unwrap(), image_of(0, 3));
            append(&journal, (0, 1), 10, records(0, 10, 1, BYTES)).unwrap();
            for through in [7, 8] {
                checkpoint(&journal, 0, 1, through).unwrap();
                let later = copy(&disk);
                let journal = open(&later);
                assert_eq!(images(&journal, 0).unwrap(), image_of(0, through), "{fault:?}");
            }
            drop(journal);
            disk.crash(how);
            let journal = open(&disk);
            assert_eq!(images(&journal, 0).unwrap(), image_of(0, 8), "{fault:?} {how:?}");
            assert_eq!(acquire(&journal, 0, 2).unwrap().checkpointed, Seq(8));
        }
    }
}

#[test]
fn a_flipped_bit_in_a_checkpoint_is_damage() {
    let disk = FaultDisk::new();
    let journal = with_records(&disk, 9);
    checkpoint(&journal, 0, 1, 3).unwrap();
    drop(journal);
    let name = disk.list().unwrap().into_iter().find(|name| name.ends_with(".base")).unwrap();
    for at in 0..disk.content(&name).unwrap().len() as u64 {
        let flipped = copy(&disk);
        assert!(flipped.flip_bit(&name, at, 5));
        let corrupt = match try_open(&flipped) {
            Err(error) => is_corrupt(&error).is_some(),
            Ok(journal) => matches!(images(&journal, 0), Err(ReadError::Corrupt { .. })),
        };
        assert!(corrupt, "byte {at}");
    }
    let lost = copy(&disk);
    lost.put(&name, disk.content(&name).unwrap()[..50].to_vec());
    assert!(is_corrupt(&try_open(&lost).err().unwrap()).is_some());
}

#[test]
fn a_checkpoint_without_its_log_or_a_trimmed_log_without_its_checkpoint_is_damage() {
    let disk = FaultDisk::new();
    let journal = with_records(&disk, 100);
    checkpoint(&journal, 0, 1, 100).unwrap();
    let before = segments(&disk).len();
    trim(&journal, 0, 1, 100).unwrap();
    assert!(segments(&disk).len() < before);
    drop(journal);
    let without_log = copy(&disk);
    for name in segments(&disk) {
        without_log.remove(&name).unwrap();
    }
    assert!(is_corrupt(&try_open(&without_log).err().unwrap()).is_some());
    let without_checkpoint = copy(&disk);
    let base = disk.list().unwrap().into_iter().find(|name| name.ends_with(".base")).unwrap();
    without_checkpoint.remove(&base).unwrap();
    assert!(is_corrupt(&try_open(&without_checkpoint).err().unwrap()).is_some());
}

#[test]
fn an_error_on_read_is_no_damage() {
    let disk = FaultDisk::new();
    let journal = with_records(&disk, 3);
    disk.inject(Fault::ReadError);
    assert!(matches!(read(&journal, 0, 0), Err(ReadError::Unavailable { .. })));
    assert_eq!(assert_whole(&journal, 0, 0, BYTES), 3);
    drop(journal);
    disk.inject(Fault::ReadError);
    let error = try_open(&disk).err().unwrap();
    assert!(matches!(error, OpenError::Read { source: ReadError::Unavailable { .. }, .. }), "{error:?}");
    assert_eq!(assert_whole(&open(&disk), 0, 0, BYTES), 3);
}

#[test]
fn bytes_of_an_earlier_life_of_a_file_never_count() {
    let disk = FaultDisk::new();
    drop(with_records(&disk, 20));
    let old = disk.content(&segments(&disk)[1]).unwrap();
    let journal = open(&disk);
    acquire(&journal, 0, 2).unwrap();
    append(&journal, (0, 2), 21, records(0, 21, 1, BYTES)).unwrap();
    drop(journal);
    // As if the file had been one of ours before and its tail were never zeroed.
    let name = last_segment(&disk);
    let mut content = disk.content(&name).unwrap();
    let end = end_of_writing(&content).next_multiple_of(64);
    content.resize(end, 0);
    content.extend_from_slice(&old[end..]);
    assert!(old[end..].windows(7).any(|text| text == b"shard 0"));
    disk.put(&name, content);
    let error = try_open(&disk).map(|journal| assert_whole(&journal, 0, 0, BYTES));
    // Nothing of it is taken for a record: it is cut, or a person is asked.
    assert!(error.as_ref().map_or_else(|error| is_corrupt(error).is_some(), |last| *last == 21), "{error:?}");
}

#[test]
fn a_later_format_is_refused_by_name() {
    let disk = FaultDisk::new();
    drop(with_records(&disk, 1));
    let name = last_segment(&disk);
    let mut content = disk.content(&name).unwrap();
    content[8] = 2;
    disk.put(&name, content);
    let error = try_open(&disk).err().unwrap();
    assert!(
        matches!(&error, OpenError::TooNew { found: 2, known: 1, segment, .. } if *segment == name),
        "{error}"
    );
}

#[test]
fn a_stale_epoch_stays_fenced_after_a_failure_and_a_restart() {
    let disk = FaultDisk::new();
    let journal = with_records(&disk, 3);
    acquire(&journal, 0, 7).unwrap();
    disk.inject(Fault::WriteError);
    assert!(append(&journal, (0, 7), 4, records(0, 4, 1, BYTES)).is_err());
    let fenced = AppendError::Fenced { held_by: Epoch(7) };
    assert_eq!(append(&journal, (0, 1), 4, records(0, 4, 1, BYTES)), Err(fenced.clone()));
    drop(journal);
    disk.crash(Crash::LoseUnsynced);
    let journal = open(&disk);
    assert_eq!(acquire(&journal, 0, 6), Err(AcquireError::Fenced { held_by: Epoch(7) }));
    assert_eq!(append(&journal, (0, 1), 4, records(0, 4, 1, BYTES)), Err(fenced));
}

#[test]
fn trimming_frees_whole_segments_and_only_those_that_no_shard_needs() {
    let disk = FaultDisk::new();
    let journal = open(&disk);
    acquire(&journal, 0, 1).unwrap();
    acquire(&journal, 1, 1).unwrap();
    for seq in 1..=100 {
        append(&journal, (0, 1), seq, records(0, seq, 1, BYTES)).unwrap();
        append(&journal, (1, 1), seq, records(1, seq, 1, BYTES)).unwrap();
    }
    // The first one holds nothing; it goes with the first trim.
    let before = segments(&disk).split_off(1);
    checkpoint(&journal, 0, 1, 100).unwrap();
    trim(&journal, 0, 1, 100).unwrap();
    assert_eq!(segments(&disk), before, "shard 1 still needs them");
    checkpoint(&journal, 1, 1, 50).unwrap();
    trim(&journal, 1, 1, 50).unwrap();
    let after: BTreeSet<String> = segments(&disk).into_iter().collect();
    assert!(after.len() < before.len() && after.len() > 1);
    assert_eq!(assert_whole(&journal, 1, 50, BYTES), 100);
    assert!(matches!(read(&journal, 1, 0), Err(ReadError::Trimmed { through }) if through <= Seq(50)));
}
