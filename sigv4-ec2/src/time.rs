//! Dates as AWS writes them, and where time and chance come from.
//!
//! A signature holds the time and a retry waits for a random one, so both are arguments: tests turn the clock.

use std::{
    fmt,
    hash::{BuildHasher, Hasher, RandomState},
    thread,
    time::{Duration, Instant, SystemTime},
};

/// Where a client gets time and chance from.
pub trait Clock: Send + Sync + fmt::Debug {
    /// The time of day, which signatures hold. May be wrong; the client corrects it by what the service says.
    fn now(&self) -> SystemTime;
    /// Time since some fixed moment; never goes back.
    fn since_start(&self) -> Duration;
    /// Blocks this thread.
    fn sleep(&self, time: Duration);
    /// Any number, each as likely: spreads the retries of many. Not for secrets.
    fn random(&self) -> u64;
}

/// The machine's own.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// Starts counting now.
    pub fn new() -> SystemClock {
        SystemClock { start: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> SystemClock {
        SystemClock::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    fn since_start(&self) -> Duration {
        self.start.elapsed()
    }

    fn sleep(&self, time: Duration) {
        thread::sleep(time);
    }

    fn random(&self) -> u64 {
        // The standard library keys each hasher anew from the kernel's random numbers: enough to spread retries.
        RandomState::new().build_hasher().finish()
    }
}

/// RFC 3339 in UTC, `2026-01-31T12:00:00.000Z`, to the second.
pub(crate) fn parse_rfc3339(text: &str) -> Option<SystemTime> {
    let (date, time) = text.split_once('T')?;
    let time = time.strip_suffix('Z')?;
    let time = time.split_once('.').map_or(time, |(whole, _)| whole);
    let mut date = date.splitn(3, '-').map(str::parse::<i64>);
    civil(date.next()?.ok()?, date.next()?.ok()?, date.next()?.ok()?, time)
}

/// The other way round, to the second.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Eras of 400 years that begin in March, so that the leap day is a year's last one.
    let from_march = days + 719_468;
    let (era, day) = (from_march / 146_097, from_march % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (year * 365 + year / 4 - year / 100);
    let month = (day * 5 + 2) / 153;
    let day = day - (month * 153 + 2) / 5 + 1;
    let (year, month) = if month < 10 { (era * 400 + year, month + 3) } else { (era * 400 + year + 1, month - 9) };
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
}

/// RFC 9110, 5.6.7: `Sun, 06 Nov 1994 08:49:37 GMT`, the form in which servers must write a date.
pub(crate) fn parse_http_date(text: &str) -> Option<SystemTime> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let [_, day, month, year, time, "GMT"] = text.split(' ').collect::<Vec<_>>()[..] else { return None };
    let month = MONTHS.iter().position(|name| *name == month)? as i64 + 1;
    civil(year.parse().ok()?, month, day.parse().ok()?, time)
}

fn civil(year: i64, month: i64, day: i64, time: &str) -> Option<SystemTime> {
    let mut parts = time.splitn(3, ':').map(str::parse::<i64>);
    let (hour, minute, second) = (parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?);
    let fits = (1970..=9999).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    if !fits || !(0..24).contains(&hour) || !(0..60).contains(&minute) || !(0..=60).contains(&second) {
        return None;
    }
    // Days since 1970 of a civil date, counted in years that begin in March.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1 - 719_468;
    let seconds = ((days * 24 + hour) * 60 + minute) * 60 + second;
    Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_written_as_it_is_read() {
        for text in ["1970-01-01T00:00:00Z", "2015-08-30T12:36:00Z", "2024-02-29T23:59:59Z", "2100-03-01T00:00:00Z", "2026-12-31T01:02:03Z"]
        {
            assert_eq!(parse_rfc3339(text).map(rfc3339).as_deref(), Some(text));
        }
    }

    #[test]
    fn both_ways_to_write_a_date_are_read() {
        let at = |seconds| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(parse_rfc3339("2015-08-30T12:36:00Z"), at(1_440_938_160));
        assert_eq!(parse_rfc3339("2015-08-30T12:36:00.999Z"), at(1_440_938_160));
        assert_eq!(parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT"), at(784_111_777));
        for wrong in ["", "2015-08-30", "2015-13-30T12:36:00Z", "2015-08-30T25:36:00Z", "1-1-1T0:0:0Z", "2015-08-30T12:36:00+02:00"] {
            assert_eq!(parse_rfc3339(wrong), None, "{wrong}");
        }
        for wrong in ["", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun, 06 Now 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:37 CET"] {
            assert_eq!(parse_http_date(wrong), None, "{wrong}");
        }
    }
}
