use kapell_model::ShardId;
use kapell_model::cron::zone;
use kapell_model::definition::{Document, Workflow};
use kapell_model::plan::compile;

use super::*;

const HOUR: u64 = 3_600_000;

fn hourly() -> Cron {
    Cron::parse("0 * * * *", zone("UTC").unwrap()).unwrap()
}

fn hours(list: impl IntoIterator<Item = u64>) -> Vec<Timestamp> {
    list.into_iter().map(|hour| Timestamp(hour * HOUR)).collect()
}

fn due_at(catchup: Catchup, after: u64, now: Timestamp) -> Due {
    due(&hourly(), catchup, Timestamp(after * HOUR), now, usize::MAX)
}

#[test]
fn a_tick_on_time_is_due_whatever_is_made_up_for() {
    for catchup in [Catchup::Latest, Catchup::All, Catchup::Skip] {
        let on_time = Timestamp(5 * HOUR).after(TICK_LATE_MAX);
        let due = due_at(catchup, 4, on_time);
        assert_eq!(due, Due { left_out: None, ticks: hours([5]) }, "{catchup:?}");
        assert_eq!(due_at(catchup, 5, on_time), Due::default(), "{catchup:?}: decided already");
    }
}

#[test]
fn missed_ticks_are_made_up_for_as_the_definition_says() {
    let now = Timestamp(9 * HOUR).after(TICK_LATE_MAX * 2);
    let missed = |last, count| Some((Timestamp(last * HOUR), count, LeftOut::Missed));
    assert_eq!(due_at(Catchup::Latest, 4, now), Due { left_out: missed(8, 4), ticks: hours([9]) });
    assert_eq!(due_at(Catchup::All, 4, now), Due { left_out: None, ticks: hours(5..=9) });
    assert_eq!(due_at(Catchup::Skip, 4, now), Due { left_out: missed(9, 5), ticks: vec![] });
    let on_time = Timestamp(9 * HOUR).after(TICK_LATE_MAX);
    assert_eq!(due_at(Catchup::Skip, 4, on_time), Due { left_out: missed(8, 4), ticks: hours([9]) });
}

#[test]
fn after_years_only_the_latest_ticks_are_made_up_for_and_the_rest_is_told() {
    let (most, years) = (CATCHUP_TICKS_MAX as u64, 100_000);
    let found = due_at(Catchup::All, 1, Timestamp(years * HOUR));
    assert_eq!(found.ticks, hours(years - most + 1..=years));
    let told = (Timestamp((years - most) * HOUR), TICKS_COUNTED_MAX, LeftOut::TooManyMissed);
    assert_eq!(found.left_out, Some(told));
    // At the limit nothing is left out, and one more is one too many.
    let exactly = due_at(Catchup::All, 1, Timestamp((most + 1) * HOUR));
    assert_eq!((exactly.left_out, exactly.ticks.len()), (None, CATCHUP_TICKS_MAX));
    let one_more = due_at(Catchup::All, 1, Timestamp((most + 2) * HOUR));
    assert_eq!(one_more.left_out, Some((Timestamp(2 * HOUR), 1, LeftOut::TooManyMissed)));
    assert_eq!(one_more.ticks.len(), CATCHUP_TICKS_MAX);
}

#[test]
fn ticks_are_decided_in_portions_and_none_is_lost_between_them() {
    let now = Timestamp(9 * HOUR);
    let first = due(&hourly(), Catchup::All, Timestamp(4 * HOUR), now, 2);
    assert_eq!(first, Due { left_out: None, ticks: hours([5, 6]) });
    let second = due(&hourly(), Catchup::All, Timestamp(6 * HOUR), now, 2);
    assert_eq!(second, Due { left_out: None, ticks: hours([7, 8]) });
}

#[test]
fn a_clock_that_went_back_decides_nothing_twice() {
    assert_eq!(due_at(Catchup::All, 9, Timestamp(5 * HOUR)), Due::default());
    assert_eq!(due_at(Catchup::All, 9, Timestamp(10 * HOUR)).ticks, hours([10]));
}

fn start(no: u32, hour: u64) -> ScheduleEntry {
    let document = serde_json::json!({
        "apiVersion": "kapell.dev/v1", "metadata": { "name": "w" },
        "spec": { "steps": [{ "id": "nap", "wait": { "for": "1h" } }] },
    });
    let document: Document<Workflow> = serde_json::from_value(document).unwrap();
    let run = TickRun {
        run: RunId::new(ShardId(0), u128::from(no)),
        workflow: Arc::new(compile(&document).unwrap()),
        key: None,
        event: Json::trusted("{}"),
    };
    ScheduleEntry::TickStarted {
        no: StartNo(no),
        tick: Timestamp(hour * HOUR),
        start: Box::new(run),
        revision: 1,
    }
}

fn state(entries: impl IntoIterator<Item = ScheduleEntry>) -> ScheduleState {
    let mut state = ScheduleState::default();
    entries.into_iter().for_each(|entry| state.evolve(&entry));
    state
}

fn over(no: u32) -> ScheduleEntry {
    ScheduleEntry::RunOver { no: StartNo(no) }
}

fn queued(hour: u64) -> ScheduleEntry {
    ScheduleEntry::TickQueued { tick: Timestamp(hour * HOUR), revision: 1 }
}

#[test]
fn a_tick_while_the_last_run_goes_on_is_left_out_waits_or_starts() {
    let goes_on = state([start(1, 1)]);
    assert_eq!(goes_on.fate(Overlap::Skip), Fate::LeaveOut(LeftOut::LastRunGoesOn));
    assert_eq!(goes_on.fate(Overlap::Queue), Fate::Wait);
    assert_eq!(goes_on.fate(Overlap::Allow), Fate::Start);
    let is_over = state([start(1, 1), over(1)]);
    for overlap in [Overlap::Skip, Overlap::Queue, Overlap::Allow] {
        assert_eq!(is_over.fate(overlap), Fate::Start);
    }
    assert_eq!(is_over.through, Timestamp(HOUR), "that a run is over moves no tick");
}

#[test]
fn waiting_ticks_start_one_after_the_other_and_none_overtakes_them() {
    let mut state = state([start(1, 1), queued(2), queued(3)]);
    assert_eq!(state.next_waiting(Overlap::Queue), None);
    state.evolve(&over(1));
    assert_eq!(state.next_waiting(Overlap::Queue), Some(Timestamp(2 * HOUR)));
    assert_eq!(state.fate(Overlap::Queue), Fate::Wait, "it goes behind those that wait");
    state.evolve(&start(2, 2));
    assert_eq!((state.next_waiting(Overlap::Queue), state.waiting.len()), (None, 1));
    assert_eq!(state.through, Timestamp(3 * HOUR), "an old tick does not move the point back");
    assert_eq!(state.next_waiting(Overlap::Allow), Some(Timestamp(3 * HOUR)), "the definition was changed");
}

#[test]
fn runs_and_waiting_ticks_have_a_limit() {
    let (runs, waiting) = (SCHEDULE_RUNS_MAX as u32, SCHEDULE_WAITING_MAX as u64);
    let full = state((1..=runs).map(|no| start(no, u64::from(no))));
    assert_eq!(full.fate(Overlap::Allow), Fate::LeaveOut(LeftOut::TooManyRuns));
    let mut room = full;
    room.evolve(&over(1));
    assert_eq!(room.fate(Overlap::Allow), Fate::Start);
    let one = state([start(1, 1)].into_iter().chain((2..=waiting).map(queued)));
    assert_eq!(one.fate(Overlap::Queue), Fate::Wait);
    let mut all = one;
    all.evolve(&queued(waiting + 1));
    assert_eq!(all.fate(Overlap::Queue), Fate::LeaveOut(LeftOut::TooManyWait));
}

#[test]
fn what_was_left_out_is_counted_and_its_reason_kept() {
    let left_out = |hour, count, why| ScheduleEntry::TicksLeftOut {
        through: Timestamp(hour * HOUR),
        count,
        why,
        revision: 3,
    };
    let no_start = LeftOut::NoStart("no such field".into());
    let state = state([
        left_out(4, 3, LeftOut::Missed),
        start(1, 5),
        queued(6),
        over(1),
        left_out(6, 1, no_start.clone()),
    ]);
    assert_eq!((state.left_out, state.revision, state.through), (4, 3, Timestamp(6 * HOUR)));
    assert_eq!(state.last_left_out, Some((Timestamp(6 * HOUR), no_start)));
    assert!(state.waiting.is_empty(), "a tick that cannot start anything waits no longer");
    assert_eq!(state.last_start.map(|(tick, _)| tick), Some(Timestamp(5 * HOUR)));
}
