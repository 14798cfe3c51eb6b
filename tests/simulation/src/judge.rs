//! The promises, held against what happened.
//!
//! Owns: which postings are right. Never: looks at anything but the world.
use crate::company::{Happening, Kind, Promise};
use crate::hosts::Site;
use crate::ticks;
use crate::world::State;

/// Says what is broken.
pub(crate) fn judge(site: &Site, is_well: bool, within_ms: u64) {
    let mut world = site.world.lock();
    if !is_well {
        let text = format!("not all was well within {within_ms} ms: {}", world.not_yet);
        world.broken.push(text);
    }
    for happening in site.happenings.iter() {
        keeps(happening, &mut world);
    }
    ticks::judge(site.mix.schedules, &mut world);
    for (entry, times) in std::mem::take(&mut world.postings) {
        world.broken.push(format!("{entry} was posted at {times:?} ms, and nobody wanted it"));
    }
    in_order(site, &mut world);
    let (answered, wrong) = std::mem::take(&mut world.histories).judge();
    world.log("judge", &format!("{answered} starts and acts of owners were answered"));
    world.broken.extend(wrong);
}

/// Whether what was posted for one event is what was promised.
fn keeps(happening: &Happening, world: &mut State) {
    let prefix = format!("{}/", happening.id);
    let posted: Vec<String> =
        world.posted.iter().filter_map(|entry| entry.strip_prefix(&prefix).map(str::to_owned)).collect();
    for entry in &posted {
        world.postings.remove(&format!("{prefix}{entry}"));
    }
    let run = world.accepted.get(&happening.id).and_then(|runs| runs.first());
    let ending = run.and_then(|run| world.ended.get(run)).cloned();
    let wrong = match happening.promise(ending.as_deref()) {
        Promise::Each(entries) => {
            let (mut posted, mut entries) = (posted.clone(), entries.to_vec());
            posted.sort_unstable();
            entries.sort_unstable();
            (posted != entries).then(|| format!("each of {entries:?}"))
        }
        Promise::InOrder(entries) => (posted != entries).then(|| format!("{entries:?}")),
        Promise::Steps(steps) => {
            let is_undone = happening.kind == Kind::Cancel && ending.as_deref() == Some("Canceled");
            // How it ended is forgotten when its beginning was trimmed and the ledger was lost.
            let is_forgotten = happening.kind == Kind::Cancel && ending.as_deref() == Some("Gone");
            let is_right = as_far_as_it_came(&posted, steps, is_undone)
                || (is_forgotten && as_far_as_it_came(&posted, steps, true));
            (!is_right).then(|| format!("a part of {steps:?} (all of it undone: {is_undone})"))
        }
        Promise::Rounds(around, most) => {
            (!is_in_rounds(&posted, around, most)).then(|| format!("rounds within {around}"))
        }
    };
    if let Some(promised) = wrong {
        let text = format!("{}, {ending:?}: {posted:?} was posted, not {promised}", happening.id);
        world.broken.push(text);
    }
}

/// Some first steps, each once, and when it was undone, the same backwards.
fn as_far_as_it_came(posted: &[String], steps: &[&str], is_undone: bool) -> bool {
    let done = posted.iter().take_while(|entry| !entry.starts_with("undo-")).count();
    let (forward, back) = posted.split_at(done);
    let undone: Vec<String> = forward.iter().rev().map(|entry| format!("undo-{entry}")).collect();
    forward.len() <= steps.len()
        && forward.iter().zip(steps).all(|(entry, step)| entry == step)
        && if is_undone { back == undone } else { back.is_empty() }
}

/// Something, then pairs of another thing and its undoing, then the undoing of the first.
fn is_in_rounds(posted: &[String], around: &str, most: usize) -> bool {
    let [first, rounds @ .., last] = posted else { return false };
    let is_pair = |pair: &[String]| pair.len() == 2 && pair[1] == format!("undo-{}", pair[0]);
    let (is_first, is_last) = (first == around, *last == format!("undo-{around}"));
    let mut done: Vec<&String> = rounds.iter().step_by(2).collect();
    done.dedup();
    let each_once = done.len() == rounds.len().div_ceil(2);
    is_first && is_last && rounds.chunks(2).all(is_pair) && rounds.len() <= 2 * most && each_once
}

/// Runs of one key in the order in which their events were accepted.
fn in_order(site: &Site, world: &mut State) {
    for key in ["k0", "k1"] {
        let lines = site.happenings.iter().filter(|one| one.kind == Kind::Line && one.data["key"] == key);
        let wanted: Vec<String> = lines.map(|one| format!("{}/line", one.id)).collect();
        let posted: Vec<String> =
            world.posted.iter().filter(|entry| wanted.contains(entry)).cloned().collect();
        if wanted != posted {
            world.broken.push(format!("key {key}: {posted:?} was the order, not {wanted:?}"));
        }
    }
}
