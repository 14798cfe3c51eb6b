use proptest::prelude::*;

use super::*;

fn cron(text: &str, zone_name: &str) -> Cron {
    Cron::parse(text, zone(zone_name).unwrap()).unwrap()
}

fn at(text: &str) -> Timestamp {
    Timestamp::from_rfc3339(text).unwrap()
}

/// All ticks after the first point and up to the second, as local times with their offset.
fn ticks(cron: &Cron, after: Timestamp, until: Timestamp) -> Vec<String> {
    let shown = |tick: Timestamp| {
        let local = point(tick).unwrap().to_zoned(cron.zone.clone());
        local.strftime("%d %H:%M %:z").to_string()
    };
    walk(cron, after, until).into_iter().map(shown).collect()
}

fn walk(cron: &Cron, after: Timestamp, until: Timestamp) -> Vec<Timestamp> {
    let next = |tick: &Timestamp| cron.next(*tick).filter(|tick| *tick <= until);
    std::iter::successors(next(&after), next).collect()
}

/// The same ticks, from the last to the first.
fn walk_back(cron: &Cron, after: Timestamp, until: Timestamp) -> Vec<Timestamp> {
    let last = |tick: &Timestamp| cron.last(after, Timestamp(tick.0 - 1));
    std::iter::successors(cron.last(after, until), last).collect()
}

const BERLIN: &str = "Europe/Berlin";
const NEW_YORK: &str = "America/New_York";
const LORD_HOWE: &str = "Australia/Lord_Howe";

/// A zone, an expression, a span of time in which the clock changes, and the ticks in it.
type Case = (&'static str, &'static str, [&'static str; 2], &'static [&'static str]);

/// 29 March 2026, 02:00 becomes 03:00. 25 October, 03:00 becomes 02:00.
const BERLIN_CASES: &[Case] = &[
    // Left out: once, at the first moment after the change.
    (BERLIN, "30 2 * * *", SPRING, &["28 02:30 +01:00", "29 03:00 +02:00", "30 02:30 +02:00"]),
    (BERLIN, "0 2 * * *", SPRING, &["28 02:00 +01:00", "29 03:00 +02:00", "30 02:00 +02:00"]),
    // Several that are left out together are one, also with one that is there.
    (BERLIN, "*/20 2 29 3 *", SPRING, &["29 03:00 +02:00"]),
    (BERLIN, "0 2,3 29 3 *", SPRING, &["29 03:00 +02:00"]),
    (BERLIN, "30 2,3 29 3 *", SPRING, &["29 03:00 +02:00", "29 03:30 +02:00"]),
    // Next to the gap nothing is made up for.
    (BERLIN, "59 1 29 3 *", SPRING, &["29 01:59 +01:00"]),
    (BERLIN, "0 3 29 3 *", SPRING, &["29 03:00 +02:00"]),
    // A rhythm goes on.
    (
        BERLIN,
        "30 * 29 3 *",
        ["2026-03-28T23:00:00Z", "2026-03-29T02:00:00Z"],
        &["29 00:30 +01:00", "29 01:30 +01:00", "29 03:30 +02:00"],
    ),
    // Every second hour names its hours.
    (
        BERLIN,
        "0 */2 29 3 *",
        ["2026-03-28T22:00:00Z", "2026-03-29T04:00:00Z"],
        &["29 00:00 +01:00", "29 03:00 +02:00", "29 04:00 +02:00", "29 06:00 +02:00"],
    ),
    // Twice: once, when it comes first.
    (BERLIN, "30 2 * * *", AUTUMN, &["24 02:30 +02:00", "25 02:30 +02:00", "26 02:30 +01:00"]),
    (BERLIN, "0 2 25 10 *", AUTUMN, &["25 02:00 +02:00"]),
    (BERLIN, "0 3 25 10 *", AUTUMN, &["25 03:00 +01:00"]),
    (BERLIN, "*/30 2 25 10 *", AUTUMN, &["25 02:00 +02:00", "25 02:30 +02:00"]),
    (
        BERLIN,
        "30 * 25 10 *",
        ["2026-10-24T23:00:00Z", "2026-10-25T02:45:00Z"],
        &["25 01:30 +02:00", "25 02:30 +02:00", "25 02:30 +01:00", "25 03:30 +01:00"],
    ),
];
const SPRING: [&str; 2] = ["2026-03-28T00:00:00Z", "2026-03-30T12:00:00Z"];
const AUTUMN: [&str; 2] = ["2026-10-24T00:00:00Z", "2026-10-26T12:00:00Z"];

/// New York: 8 March 2026, 02:00 becomes 03:00; 1 November, 02:00 becomes 01:00. Lord Howe moves by half an hour: 5
/// April 2026, 02:00 becomes 01:30; 4 October, 02:00 becomes 02:30.
const OTHER_CASES: &[Case] = &[
    (
        NEW_YORK,
        "15 2 * * *",
        ["2026-03-07T06:00:00Z", "2026-03-09T12:00:00Z"],
        &["07 02:15 -05:00", "08 03:00 -04:00", "09 02:15 -04:00"],
    ),
    (
        NEW_YORK,
        "30 1 * * SUN",
        ["2026-10-31T00:00:00Z", "2026-11-09T00:00:00Z"],
        &["01 01:30 -04:00", "08 01:30 -05:00"],
    ),
    (
        NEW_YORK,
        "0 0 * * *",
        ["2026-10-31T00:00:00Z", "2026-11-02T12:00:00Z"],
        &["31 00:00 -04:00", "01 00:00 -04:00", "02 00:00 -05:00"],
    ),
    (
        LORD_HOWE,
        "45 1 * * *",
        ["2026-04-03T16:00:00Z", "2026-04-06T00:00:00Z"],
        &["05 01:45 +11:00", "06 01:45 +10:30"],
    ),
    (
        LORD_HOWE,
        "45 * 5 4 *",
        ["2026-04-04T13:30:00Z", "2026-04-04T16:30:00Z"],
        &["05 00:45 +11:00", "05 01:45 +11:00", "05 01:45 +10:30", "05 02:45 +10:30"],
    ),
    (
        LORD_HOWE,
        "15 2 * * *",
        ["2026-10-02T16:00:00Z", "2026-10-05T00:00:00Z"],
        &["04 02:30 +11:00", "05 02:15 +11:00"],
    ),
    (
        LORD_HOWE,
        "15,45 2 4 10 *",
        ["2026-10-02T16:00:00Z", "2026-10-05T00:00:00Z"],
        &["04 02:30 +11:00", "04 02:45 +11:00"],
    ),
    // Beirut's clock goes forward at midnight.
    (
        "Asia/Beirut",
        "0 0 * * *",
        ["2026-03-27T00:00:00Z", "2026-03-30T00:00:00Z"],
        &["28 00:00 +02:00", "29 01:00 +03:00", "30 00:00 +03:00"],
    ),
    // Apia left out a whole day.
    (
        "Pacific/Apia",
        "0 12 * * *",
        ["2011-12-29T00:00:00Z", "2012-01-01T00:00:00Z"],
        &["29 12:00 -10:00", "31 00:00 +14:00", "31 12:00 +14:00", "01 12:00 +14:00"],
    ),
    (
        "UTC",
        "0 0 29 2 *",
        ["2026-01-01T00:00:00Z", "2033-01-01T00:00:00Z"],
        &["29 00:00 +00:00", "29 00:00 +00:00"],
    ),
    // Day of month or day of week, as cron has it; the last day; the first Monday.
    (
        "UTC",
        "0 9 13 * FRI",
        ["2026-03-01T00:00:00Z", "2026-03-21T00:00:00Z"],
        &["06 09:00 +00:00", "13 09:00 +00:00", "20 09:00 +00:00"],
    ),
    (
        "UTC",
        "0 0 L * *",
        ["2026-01-01T00:00:00Z", "2026-03-01T00:00:00Z"],
        &["31 00:00 +00:00", "28 00:00 +00:00"],
    ),
    (
        "UTC",
        "0 6 * * MON#1",
        ["2026-01-01T00:00:00Z", "2026-02-03T00:00:00Z"],
        &["05 06:00 +00:00", "02 06:00 +00:00"],
    ),
];

#[test]
fn a_local_time_is_one_tick_whatever_the_clock_does_and_a_rhythm_goes_on() {
    for (zone, text, [after, until], expected) in BERLIN_CASES.iter().chain(OTHER_CASES) {
        let (cron, after, until) = (cron(text, zone), at(after), at(until));
        assert_eq!(ticks(&cron, after, until), *expected, "{text} in {zone}");
        let mut back = walk_back(&cron, after, until);
        back.reverse();
        assert_eq!(back, walk(&cron, after, until), "{text} in {zone}, from the last to the first");
    }
}

#[test]
fn a_tick_is_after_the_point_that_is_asked_for_and_never_at_it() {
    let cron = cron("*/5 * * * *", "UTC");
    let noon = at("2026-05-01T12:00:00Z");
    assert_eq!(cron.next(Timestamp(noon.0 - 1)), Some(noon));
    assert_eq!(cron.next(noon), Some(at("2026-05-01T12:05:00Z")));
    assert_eq!(cron.last(Timestamp(noon.0 - 1), noon), Some(noon));
    assert_eq!(cron.last(noon, Timestamp(noon.0 + 1)), None);
    assert_eq!(cron.last(noon, noon), None);
}

#[test]
fn what_never_comes_is_not_looked_for_without_end() {
    for text in ["0 0 30 2 *", "0 0 31 4,6,9,11 *"] {
        let cron = cron(text, BERLIN);
        assert_eq!(cron.next(at("2026-01-01T00:00:00Z")), None, "{text}");
        assert_eq!(cron.last(Timestamp(0), at("2026-01-01T00:00:00Z")), None, "{text}");
    }
    assert_eq!(cron("* * * * *", "UTC").next(Timestamp(u64::MAX)), None);
}

#[test]
fn only_five_fields_are_an_expression() {
    let wrong = |text: &str| Cron::parse(text, TimeZone::UTC).map(drop).unwrap_err().0;
    assert_eq!(wrong("0 0 8 * * *"), "it has 6");
    assert_eq!(wrong("@daily"), "it has 1");
    assert_eq!(wrong("0 25 * * *"), "Number out of bounds");
}

/// Minute by minute, without a thought about changes of the clock: what the ticks of some days must be.
fn expected(cron: &Cron, from: Timestamp, minutes: u64) -> Vec<Timestamp> {
    let clock: Vec<(Timestamp, DateTime)> = (0..minutes)
        .map(|minute| Timestamp(from.0 + minute * 60_000))
        .map(|at| (at, cron.zone.to_datetime(point(at).unwrap())))
        .collect();
    let fits = |local: DateTime| {
        cron.pattern.month_match(local.date().month() as u32).unwrap()
            && cron.fits_day(local.date())
            && cron.fits_minute(minute_of(local.time()))
    };
    if cron.hours == EVERY_HOUR {
        return clock.iter().filter(|(_, local)| fits(*local)).map(|(at, _)| *at).collect();
    }
    let (first, last) = (clock[0].1, clock[clock.len() - 1].1);
    let mut locals: Vec<DateTime> =
        std::iter::successors(Some(first), |local| local.checked_add(1.minute()).ok())
            .take_while(|local| *local <= last)
            .filter(|local| fits(*local))
            .collect();
    locals.dedup();
    let when = |wanted: DateTime| clock.iter().find(|(_, local)| *local >= wanted).map(|(at, _)| *at);
    let mut ticks: Vec<Timestamp> = locals.into_iter().filter_map(when).collect();
    ticks.dedup();
    ticks
}

/// Days on which some clock changes, and days on which none does.
const DAYS: [&str; 7] = [
    "2026-03-28T00:00:00Z",
    "2026-10-24T00:00:00Z",
    "2026-03-07T12:00:00Z",
    "2026-10-31T12:00:00Z",
    "2026-04-04T00:00:00Z",
    "2026-10-03T00:00:00Z",
    "2027-06-30T00:00:00Z",
];
const ZONES_TRIED: [&str; 8] = [
    BERLIN,
    NEW_YORK,
    LORD_HOWE,
    "UTC",
    "Asia/Kolkata",
    "Pacific/Chatham",
    "Europe/Dublin",
    "America/Santiago",
];

fn field(most: u32) -> impl Strategy<Value = String> {
    prop_oneof![
        Just("*".to_owned()),
        (0..most).prop_map(|one| one.to_string()),
        proptest::collection::btree_set(0..most, 1..4).prop_map(|some| some
            .iter()
            .map(u32::to_string)
            .collect::<Vec<_>>()
            .join(",")),
        (2..most).prop_map(|step| format!("*/{step}")),
        (0..4_u32, 1..8_u32).prop_map(move |(from, long)| format!("{from}-{}", (from + long).min(most - 1))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn ticks_are_those_that_a_look_at_every_minute_finds(
        minute in field(60),
        hour in prop_oneof![field(24), (0..5_u32).prop_map(|hour| hour.to_string())],
        day_of_week in prop_oneof![3 => Just("*".to_owned()), 1 => field(7)],
        zone in proptest::sample::select(&ZONES_TRIED[..]),
        day in proptest::sample::select(&DAYS[..]),
    ) {
        let cron = cron(&format!("{minute} {hour} * * {day_of_week}"), zone);
        let (from, minutes) = (at(day), 3 * 24 * 60);
        let after = Timestamp(from.0 - 1);
        let until = Timestamp(from.0 + (minutes - 1) * 60_000);
        let found = walk(&cron, after, until);
        prop_assert_eq!(&found, &expected(&cron, from, minutes));
        prop_assert!(found.is_sorted_by(|one, next| one < next), "each is after the one before");
        let mut back = walk_back(&cron, after, until);
        back.reverse();
        prop_assert_eq!(&found, &back);
    }

    #[test]
    fn asking_from_anywhere_before_a_tick_gives_the_same_tick(
        minute in field(60),
        hour in field(24),
        zone in proptest::sample::select(&ZONES_TRIED[..]),
        from in 1_760_000_000_000_u64..1_800_000_000_000,
        part in 0.0..1.0_f64,
    ) {
        let cron = cron(&format!("{minute} {hour} * * *"), zone);
        let tick = cron.next(Timestamp(from)).unwrap();
        prop_assert!(tick.0 > from);
        let between = Timestamp(from + ((tick.0 - 1 - from) as f64 * part) as u64);
        prop_assert_eq!(cron.next(between), Some(tick));
        prop_assert_eq!(cron.last(Timestamp(from), tick), Some(tick));
        prop_assert_eq!(cron.last(Timestamp(from), Timestamp(tick.0 - 1)), None);
    }
}
