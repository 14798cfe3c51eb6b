//! A run that was stored and read again is the run that it was.
use std::collections::BTreeSet;

use kapell_kernel::{
    Attempt, BadImage, Command, Entry, Order, Phase, Run, RunImage, Status, StepImage, UnitId, Verdict,
    outstanding,
};
use kapell_model::plan::StepIndex;
use kapell_wire::{Image, RecordBody, RecordRef, decode_image, decode_record, encode_image, encode_record};
use proptest::prelude::*;

use crate::driver::{Choice, Driver};
use crate::samples::kind_of;
use crate::world::WORLD;

/// Through the bytes and back.
fn stored(run: &Run) -> Run {
    let image = run.to_image();
    let bytes = encode_image(&Image::Run(Box::new(image.clone())));
    let read = decode_image(run.id, &bytes, &*WORLD).unwrap();
    assert_eq!(read, Image::Run(Box::new(image.clone())));
    let again = Run::from_image(image).unwrap();
    assert_eq!(again.to_image(), run.to_image());
    again
}

/// All of a run as text, without the two hints where a fan-out looks next: they are lower bounds, and an image does
/// not hold them.
fn text(run: &Run) -> String {
    let mut text = format!("{run:?}");
    for hint in ["next: ", "undo_next: "] {
        let mut parts = text.split(hint);
        let mut without = parts.next().unwrap_or_default().to_owned();
        parts.for_each(|part| without.push_str(part.trim_start_matches(|char: char| char.is_ascii_digit())));
        text = without;
    }
    text
}

fn entry_survives(driver: &Driver, entry: &Entry) {
    let bytes = encode_record(driver.at, RecordRef::Entry(entry));
    let (at, read) = decode_record(&bytes, &*WORLD).unwrap();
    assert_eq!((at, read), (driver.at, RecordBody::Entry(entry.clone())));
}

/// Drives one run; after each command it goes through its image, and both do the next command alike.
fn drive(seed: u8, choices: &[Choice], mut seen: impl FnMut(&Run, &[Entry])) {
    let mut driver = Driver::new(seed);
    entry_survives(&driver, &Entry::RunAccepted(Box::new(driver.run.accepted().clone())));
    for choice in choices {
        let restored = stored(&driver.run);
        assert_eq!(text(&restored), text(&driver.run), "seed {seed}, before {choice:?}");
        assert_eq!(outstanding(&restored), outstanding(&driver.run));
        let Some(command) = driver.command(*choice) else { continue };
        let mut twin = Driver { run: restored, at: driver.at };
        let entries = driver.handle(command.clone());
        assert_eq!(twin.handle(command), entries, "the restored run decides otherwise");
        entries.iter().for_each(|entry| entry_survives(&driver, entry));
        seen(&driver.run, &entries);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn a_run_survives_its_image_in_every_state(
        seed in any::<u8>(),
        choices in proptest::collection::vec(any::<Choice>(), 0..80),
    ) {
        drive(seed, &choices, |_, _| {});
    }
}

/// The property above is worth what its driver reaches.
#[test]
fn the_driver_reaches_every_phase_status_and_entry() {
    let (mut phases, mut statuses, mut kinds) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    kinds.insert("run-accepted");
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut draw = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    for seed in 0..120 {
        let choices: Vec<Choice> = (0..120).map(|_| (draw(), draw())).collect();
        let mut driver = Driver::new(seed);
        phases.insert(phase_of(driver.run.phase()));
        for choice in choices {
            let Some(command) = driver.command(choice) else { continue };
            let entries = driver.handle(command);
            phases.insert(phase_of(driver.run.phase()));
            statuses.extend(driver.run.units().map(|(_, unit)| status_of(&unit.status)));
            kinds.extend(entries.iter().map(kind_of));
        }
    }
    assert_eq!(phases.len(), 6, "{phases:?}");
    // `Skipped` is for later; nothing sets it today. `Cleared` lasts only while a run is paused.
    assert_eq!(statuses.len(), 13, "{statuses:?}");
    assert_eq!(kinds.len(), crate::samples::KINDS, "{kinds:?}");
}

#[test]
fn parts_that_do_not_belong_together_are_refused() {
    let good = Driver::new(1).run.to_image();
    let with = |change: fn(&mut RunImage)| {
        let mut image = good.clone();
        change(&mut image);
        Run::from_image(image).unwrap_err()
    };
    assert!(Run::from_image(good.clone()).is_ok());
    assert_eq!(
        with(|image| image.steps = vec![(StepIndex(10), StepImage::Skipped)]),
        BadImage::NotInPlan(10, 10)
    );
    let twice = with(|image| {
        image.steps = vec![(StepIndex(1), StepImage::Skipped), (StepIndex(1), StepImage::Skipped)]
    });
    assert_eq!(twice, BadImage::OutOfOrder(1));
    let fan = with(|image| {
        let fan = StepImage::Fan { items: vec![kapell_model::Json::null()], units: vec![], output: None };
        image.steps = vec![(StepIndex(2), fan)];
    });
    assert_eq!(fan, BadImage::Items { step: 2, items: 1, units: 0 });
    let unit = UnitId::step(StepIndex(0));
    assert_eq!(with(|image| image.cleared = vec![UnitId::step(StepIndex(0))]), BadImage::NoUnit(unit));
    assert_eq!(with(|image| image.failed = Some(UnitId::step(StepIndex(0)))), BadImage::NoUnit(unit));
}

#[test]
fn a_paused_run_keeps_its_cleared_units_in_their_order() {
    let mut driver = Driver::new(2);
    let pause = Command::Pause { by: "ann".into(), reason: "wait".into() };
    // Context, plan, the first step; two items and a suggestion wait for their judgement.
    for step in 0..3 {
        let wanted = |order: &Order| {
            let first = matches!(order, Order::Dispatch(task) if task.unit == UnitId::step(StepIndex(0)));
            first || matches!(order, Order::GatherContext | Order::MakePlan)
        };
        let order = outstanding(&driver.run).into_iter().find(wanted).unwrap();
        let command = driver.answer(order, 1).unwrap();
        assert!(!driver.handle(command).is_empty(), "{step}");
    }
    driver.handle(pause);
    let judged = |order: &Order| if let Order::Judge { unit, .. } = order { Some(*unit) } else { None };
    let mut expected: Vec<UnitId> = outstanding(&driver.run).iter().filter_map(judged).collect();
    expected.reverse();
    assert_eq!(expected.len(), 3);
    for unit in &expected {
        let (verdict, reasons) = (Verdict::Follow, vec![]);
        driver.handle(Command::GiveVerdict { unit: *unit, attempt: Attempt(1), verdict, reasons });
    }
    assert_eq!(driver.run.to_image().cleared, expected);
    assert_eq!(stored(&driver.run).to_image().cleared, expected);
}

fn phase_of(phase: &Phase) -> &'static str {
    match phase {
        Phase::Queued => "queued",
        Phase::Gathering => "gathering",
        Phase::Planning => "planning",
        Phase::Running => "running",
        Phase::WindingUp { .. } => "winding up",
        Phase::Ended(_) => "ended",
    }
}

fn status_of(status: &Status) -> &'static str {
    match status {
        Status::Waiting => "waiting",
        Status::Judging => "judging",
        Status::Asking(_) => "asking",
        Status::Cleared => "cleared",
        Status::Working { .. } => "working",
        Status::BackingOff { .. } => "backing off",
        Status::Sleeping { .. } => "sleeping",
        Status::Listening { .. } => "listening",
        Status::InChild { .. } => "in child",
        Status::Settling => "settling",
        Status::Done(_) => "done",
        Status::Failed(_) => "failed",
        Status::Canceled => "canceled",
        Status::Skipped => "skipped",
    }
}
