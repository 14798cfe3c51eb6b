//! Ticks: the points in time that a cron expression means in a time zone.
//!
//! Owns: the five fields, the time zones, and what becomes of local times that a change of the clock leaves out or
//! repeats. Never: reads a clock.
//!
//! An expression that names its hours means local times, and each of them is one tick: one that a change of the clock
//! leaves out is made up for at the first moment after the change, one that comes twice counts when it comes first.
//! Several that one change leaves out are one tick. An expression with every hour (`*`) means a rhythm: a tick is
//! whenever the clock shows a time that fits, twice in an hour that comes twice, never in one that is left out.
//! This is what cron has done for decades, and it is what both kinds are written for.
use std::sync::LazyLock;
use std::time::Duration;

use croner::parser::{CronParser, Seconds, Year};
use croner::{CronPattern, Weekday};
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{Offset, TimeZone, TimeZoneDatabase};
use jiff::{SignedDuration, Timestamp as Point, ToSpan as _};

use crate::Timestamp;
use crate::limits::TICK_SEARCH_YEARS;

/// A cron expression in its time zone.
#[derive(Clone, Debug)]
pub struct Cron {
    pattern: CronPattern,
    zone: TimeZone,
    /// One bit for each hour.
    hours: u32,
    /// One bit for each minute.
    minutes: u64,
}

/// Why a text is no cron expression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotACron(pub String);

/// The time zones that are compiled in, so that nothing depends on the machine.
static ZONES: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);
const EVERY_HOUR: u32 = (1 << 24) - 1;
const DAY_MINUTES: u32 = 24 * 60;
const NANOSECOND: SignedDuration = SignedDuration::from_nanos(1);

/// The time zone of this name; `None`: there is none.
#[must_use]
pub fn zone(name: &str) -> Option<TimeZone> {
    ZONES.get(name).ok()
}

/// The names of all time zones.
#[must_use]
pub fn zone_names() -> Vec<String> {
    ZONES.available().map(|name| name.as_str().to_owned()).collect()
}

/// What the clock does at the beginning of a stretch.
enum Change {
    /// It goes forward: at this point, local times from the first to before the second are left out.
    LeavesOut(Point, DateTime, DateTime),
    /// It goes back: local times before this one have come already.
    Repeats(DateTime),
}

/// Time in which a zone keeps one offset from UTC.
struct Stretch {
    offset: Offset,
    /// When it began, and the offset before.
    begin: Option<(Point, Offset)>,
    /// When the next one begins.
    end: Option<Point>,
}

impl Cron {
    /// Reads five fields: minute, hour, day of month, month, day of week.
    pub fn parse(text: &str, zone: TimeZone) -> Result<Cron, NotACron> {
        let fields = text.split_whitespace().count();
        if fields != 5 {
            return Err(NotACron(format!("it has {fields}")));
        }
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let pattern = parser.parse(text).map_err(|error| {
            let text = error.to_string();
            NotACron(text.rsplit(": ").next().unwrap_or(&text).trim_end_matches('.').to_owned())
        })?;
        let pattern = pattern.pattern;
        let fits = |fits: Result<bool, _>| u64::from(fits.unwrap_or(false));
        let hours = (0..24).map(|hour| (fits(pattern.hour_match(hour)) as u32) << hour).sum();
        let minutes = (0..60).map(|minute| fits(pattern.minute_match(minute)) << minute).sum();
        Ok(Cron { pattern, zone, hours, minutes })
    }

    /// The same times of day in another time zone.
    #[must_use]
    pub fn in_zone(self, zone: TimeZone) -> Cron {
        Cron { zone, ..self }
    }

    /// The first tick after this point; `None`: there is none within [`TICK_SEARCH_YEARS`].
    #[must_use]
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let mut from = point(after.after(Duration::from_millis(1)))?;
        let horizon = from.to_zoned(TimeZone::UTC).datetime().checked_add(TICK_SEARCH_YEARS.years()).ok()?;
        loop {
            let stretch = self.stretch(from);
            if let Some(tick) = self.first_in(&stretch, from, horizon) {
                return timestamp(tick);
            }
            from = stretch.end.filter(|end| stretch.offset.to_datetime(*end) < horizon)?;
        }
    }

    /// The last tick up to this point and after the other one; `None`: there is none.
    #[must_use]
    pub fn last(&self, after: Timestamp, until: Timestamp) -> Option<Timestamp> {
        let (after, mut until) = (point(after)?, point(until)?);
        while after < until {
            let stretch = self.stretch(until);
            if let Some(tick) = self.last_in(&stretch, after, until) {
                return if tick > after { timestamp(tick) } else { None };
            }
            until = stretch.begin?.0.checked_sub(NANOSECOND).ok()?;
        }
        None
    }

    fn stretch(&self, at: Point) -> Stretch {
        let began = at.checked_add(NANOSECOND).ok().and_then(|just_after| {
            let begin = self.zone.preceding(just_after).next()?.timestamp();
            Some((begin, self.zone.to_offset(begin.checked_sub(NANOSECOND).ok()?)))
        });
        let end = self.zone.following(at).next().map(|change| change.timestamp());
        Stretch { offset: self.zone.to_offset(at), begin: began, end }
    }

    /// What a change of the clock means for an expression that names its hours; for others it means nothing.
    fn change(&self, stretch: &Stretch) -> Option<Change> {
        let (begin, before) = stretch.begin.filter(|_| self.hours != EVERY_HOUR)?;
        let (old, new) = (before.to_datetime(begin), stretch.offset.to_datetime(begin));
        Some(if old < new { Change::LeavesOut(begin, old, new) } else { Change::Repeats(old) })
    }

    /// The first tick of a stretch at or after `from`, and before the horizon.
    fn first_in(&self, stretch: &Stretch, from: Point, horizon: DateTime) -> Option<Point> {
        let mut local = stretch.offset.to_datetime(from);
        match self.change(stretch) {
            Some(Change::LeavesOut(begin, old, new)) if begin == from => {
                if self.first_local(old, new).is_some() {
                    return Some(begin);
                }
            }
            Some(Change::Repeats(until)) => local = local.max(until),
            Some(Change::LeavesOut(..)) | None => {}
        }
        let end = stretch.end.map_or(horizon, |end| stretch.offset.to_datetime(end).min(horizon));
        stretch.offset.to_timestamp(self.first_local(local, end)?).ok()
    }

    /// The last tick of a stretch up to `until`; what is before `after` need not be found.
    fn last_in(&self, stretch: &Stretch, after: Point, until: Point) -> Option<Point> {
        let begin = stretch.begin.map_or(after, |(begin, _)| begin.max(after));
        let (mut from, change) = (stretch.offset.to_datetime(begin), self.change(stretch));
        if let Some(Change::Repeats(until)) = change {
            from = from.max(until);
        }
        if let Some(local) = self.last_local(from, stretch.offset.to_datetime(until)) {
            return stretch.offset.to_timestamp(local).ok();
        }
        match change? {
            Change::LeavesOut(begin, old, new) => self.first_local(old, new).map(|_| begin),
            Change::Repeats(_) => None,
        }
    }

    /// The first local time that fits, at or after `from` and before `end`.
    fn first_local(&self, from: DateTime, end: DateTime) -> Option<DateTime> {
        let (mut date, mut minute) = (from.date(), minute_of(from.time()));
        // In the middle of a minute, the next one is the first.
        minute += u32::from(from.time().second() > 0 || from.time().subsec_nanosecond() > 0);
        while date.at(0, 0, 0, 0) < end {
            if !self.pattern.month_match(date.month() as u32).unwrap_or(false) {
                date = date.last_of_month();
            } else if self.fits_day(date)
                && let Some(found) = (minute..DAY_MINUTES).find(|minute| self.fits_minute(*minute))
            {
                return Some(local(date, found)).filter(|local| *local < end);
            }
            (date, minute) = (date.tomorrow().ok()?, 0);
        }
        None
    }

    /// The last local time that fits, at or after `from` and up to `until`.
    fn last_local(&self, from: DateTime, until: DateTime) -> Option<DateTime> {
        let (mut date, mut minutes) = (until.date(), minute_of(until.time()) + 1);
        while date >= from.date() {
            if !self.pattern.month_match(date.month() as u32).unwrap_or(false) {
                date = date.first_of_month();
            } else if self.fits_day(date)
                && let Some(found) = (0..minutes).rev().find(|minute| self.fits_minute(*minute))
            {
                return Some(local(date, found)).filter(|local| *local >= from);
            }
            (date, minutes) = (date.yesterday().ok()?, DAY_MINUTES);
        }
        None
    }

    fn fits_day(&self, date: Date) -> bool {
        let weekday = Weekday::from_days_from_sunday(date.weekday().to_sunday_zero_offset() as u32);
        let (year, month, day) = (i32::from(date.year()), date.month() as u32, date.day() as u32);
        self.pattern.day_match(year, month, day, weekday).unwrap_or(false)
    }

    fn fits_minute(&self, minute: u32) -> bool {
        self.hours & (1 << (minute / 60)) != 0 && self.minutes & (1 << (minute % 60)) != 0
    }
}

fn minute_of(time: Time) -> u32 {
    time.hour() as u32 * 60 + time.minute() as u32
}

fn local(date: Date, minute: u32) -> DateTime {
    date.at((minute / 60) as i8, (minute % 60) as i8, 0, 0)
}

fn point(at: Timestamp) -> Option<Point> {
    Point::from_millisecond(i64::try_from(at.0).ok()?).ok()
}

fn timestamp(at: Point) -> Option<Timestamp> {
    u64::try_from(at.as_millisecond()).ok().map(Timestamp)
}

#[cfg(test)]
mod tests;
