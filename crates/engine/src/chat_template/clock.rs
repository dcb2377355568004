//! A wall-clock time and Python's `strftime` of it, in the C locale. Does not own time zones: the fields are
//! what a clock on the wall shows.

use std::time::{SystemTime, UNIX_EPOCH};

const MONTHS: [&str; 12] =
    ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// A date and a time of day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WallClock {
    days: i64,
    second_of_day: u32,
    microsecond: u32,
}

impl WallClock {
    /// The current time, in UTC.
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::from_unix(i64::try_from(since.as_secs()).unwrap_or(0))
    }

    /// Seconds since 1970, in UTC.
    pub fn from_unix(seconds: i64) -> Self {
        Self { days: seconds.div_euclid(86_400), second_of_day: seconds.rem_euclid(86_400) as u32, microsecond: 0 }
    }

    /// The fields of an RFC 3339 time (`2026-11-20T12:00:00Z`) as written; its offset is checked for form and
    /// not applied. `None` if it is not one.
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let number = |from: usize, len: usize| -> Option<u32> {
            let digits = text.get(from..from + len)?;
            digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())?
        };
        let is = |at: usize, set: &[u8]| bytes.get(at).is_some_and(|b| set.contains(b));
        if !(is(4, b"-") && is(7, b"-") && is(10, b"Tt ") && is(13, b":") && is(16, b":")) {
            return None;
        }
        let (year, month, day) = (number(0, 4)?, number(5, 2)?, number(8, 2)?);
        let (hour, minute, second) = (number(11, 2)?, number(14, 2)?, number(17, 2)?);
        let mut at = 19;
        let mut microsecond = 0;
        if is(at, b".") {
            let digits = bytes[at + 1..].iter().take_while(|b| b.is_ascii_digit()).count();
            for place in 0..6 {
                let digit = if place < digits { u32::from(bytes[at + 1 + place] - b'0') } else { 0 };
                microsecond = microsecond * 10 + digit;
            }
            at += 1 + digits;
            if digits == 0 {
                return None;
            }
        }
        let offset = &bytes[at..];
        let offset_ok = match offset {
            [] | [b'Z' | b'z'] => true,
            [b'+' | b'-', ..] => offset.len() == 6 && is(at + 3, b":") && number(at + 1, 2)? < 24 && number(at + 4, 2)? < 60,
            _ => false,
        };
        let year = i64::from(year);
        let in_range = (1..=12).contains(&month) && hour < 24 && minute < 60 && second <= 60;
        if !offset_ok || !in_range || day == 0 || i64::from(day) > days_in_month(year, month) {
            return None;
        }
        let second_of_day = hour * 3600 + minute * 60 + second.min(59);
        Some(Self { days: days_from_civil(year, month, day), second_of_day, microsecond })
    }

    /// Year, month and day.
    fn date(&self) -> (i64, u32, u32) {
        // Howard Hinnant's civil_from_days: years start in March, so that the leap day is the last.
        let z = self.days + 719_468;
        let era = z.div_euclid(146_097);
        let day_of_era = z.rem_euclid(146_097);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * shifted + 2) / 5 + 1;
        let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
        (year_of_era + era * 400 + i64::from(month <= 2), month as u32, day as u32)
    }

    /// `format` with its `%` directives filled in; unknown ones stay as they are.
    pub fn strftime(&self, format: &str) -> String {
        let mut out = String::with_capacity(format.len() + 16);
        self.push(&mut out, format);
        out
    }

    fn push(&self, out: &mut String, format: &str) {
        let (year, month, day) = self.date();
        let (hour, minute, second) = (self.second_of_day / 3600, self.second_of_day / 60 % 60, self.second_of_day % 60);
        let weekday = (self.days + 4).rem_euclid(7);
        let yearday = self.days - days_from_civil(year, 1, 1);
        let hour12 = (hour + 11) % 12 + 1;
        let (iso_year, iso_week) = self.iso_week(year, yearday, weekday);
        let mut chars = format.chars();
        while let Some(c) = chars.next() {
            if c != '%' {
                out.push(c);
                continue;
            }
            let rest = chars.as_str();
            let pad = chars.clone().next().filter(|c| matches!(c, '-' | '_' | '0' | '^'));
            if pad.is_some() {
                chars.next();
            }
            let Some(directive) = chars.next() else {
                out.push('%');
                out.push_str(rest);
                return;
            };
            let mut number = |value: i64, width: usize, blank: bool| match (pad, blank) {
                (Some('-'), _) => out.push_str(&value.to_string()),
                (Some('_'), _) | (None, true) => out.push_str(&format!("{value:>width$}")),
                _ => out.push_str(&format!("{value:0>width$}")),
            };
            match directive {
                'Y' => number(year, 1, false),
                'G' => number(iso_year, 1, false),
                'C' => number(year.div_euclid(100), 2, false),
                'y' => number(year.rem_euclid(100), 2, false),
                'g' => number(iso_year.rem_euclid(100), 2, false),
                'm' => number(month.into(), 2, false),
                'd' => number(day.into(), 2, false),
                'e' => number(day.into(), 2, true),
                'H' => number(hour.into(), 2, false),
                'k' => number(hour.into(), 2, true),
                'I' => number(hour12.into(), 2, false),
                'l' => number(hour12.into(), 2, true),
                'M' => number(minute.into(), 2, false),
                'S' => number(second.into(), 2, false),
                'f' => number(self.microsecond.into(), 6, false),
                'j' => number(yearday + 1, 3, false),
                'U' => number((yearday + 7 - weekday) / 7, 2, false),
                'W' => number((yearday + 7 - (weekday + 6) % 7) / 7, 2, false),
                'V' => number(iso_week, 2, false),
                'u' => number((weekday + 6) % 7 + 1, 1, false),
                'w' => number(weekday, 1, false),
                's' => number(self.days * 86_400 + i64::from(self.second_of_day), 1, false),
                'A' | 'a' | 'B' | 'b' | 'h' | 'p' => {
                    let name = match directive {
                        'A' => DAYS[weekday as usize],
                        'a' => &DAYS[weekday as usize][..3],
                        'B' => MONTHS[month as usize - 1],
                        'p' => ["AM", "PM"][usize::from(hour >= 12)],
                        _ => &MONTHS[month as usize - 1][..3],
                    };
                    out.push_str(&if pad == Some('^') { name.to_uppercase() } else { name.to_owned() });
                }
                'P' => out.push_str(["am", "pm"][usize::from(hour >= 12)]),
                'D' | 'x' => self.push(out, "%m/%d/%y"),
                'F' => self.push(out, "%Y-%m-%d"),
                'T' | 'X' => self.push(out, "%H:%M:%S"),
                'R' => self.push(out, "%H:%M"),
                'r' => self.push(out, "%I:%M:%S %p"),
                'c' => self.push(out, "%a %b %e %H:%M:%S %Y"),
                // A time without a zone prints none.
                'z' | 'Z' => {}
                'n' => out.push('\n'),
                't' => out.push('\t'),
                '%' => out.push('%'),
                other => {
                    out.push('%');
                    out.extend(pad);
                    out.push(other);
                }
            }
        }
    }

    /// ISO 8601 year and week, whose weeks start on Monday and belong to the year of their Thursday.
    fn iso_week(&self, year: i64, yearday: i64, weekday: i64) -> (i64, i64) {
        let thursday = yearday - (weekday + 6) % 7 + 3;
        let days_in = |year: i64| days_from_civil(year + 1, 1, 1) - days_from_civil(year, 1, 1);
        if thursday < 0 {
            return (year - 1, (thursday + days_in(year - 1)) / 7 + 1);
        }
        if thursday >= days_in(year) {
            return (year + 1, 1);
        }
        (year, thursday / 7 + 1)
    }
}

fn days_in_month(year: i64, month: u32) -> i64 {
    let (next_year, next) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
    days_from_civil(next_year, next, 1) - days_from_civil(year, month, 1)
}

/// Days from 1970-01-01 to a date; Howard Hinnant's days_from_civil.
fn days_from_civil(year: i64, month: u32, day: u32) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let shifted = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * i64::from(shifted) + 2) / 5 + i64::from(day) - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::WallClock;

    #[test]
    fn strftime_writes_what_python_writes() {
        // Expected values are those of Python's datetime.strftime.
        let rows = [
            ("2026-11-20T12:00:00Z", "%d %b %Y", "20 Nov 2026"),
            ("2026-11-20T12:00:00Z", "%Y-%m-%d %H:%M:%S %A %B %j %p %I", "2026-11-20 12:00:00 Friday November 324 PM 12"),
            ("2026-11-05T00:07:09.25+01:00", "%-d.%-m.%y %e|%l|%f|%%|%z", "5.11.26  5|12|250000|%|"),
            ("2024-02-29T23:59:59Z", "%c|%D|%F|%T|%R|%r", "Thu Feb 29 23:59:59 2024|02/29/24|2024-02-29|23:59:59|23:59|11:59:59 PM"),
            ("2027-01-01T00:00:00Z", "%G-W%V-%u %U %W %w", "2026-W53-5 00 00 5"),
            ("2020-12-31T00:00:00Z", "%G-W%V-%u %U %W", "2020-W53-4 52 52"),
            ("1969-12-31T23:59:59Z", "%a %Y %s", "Wed 1969 -1"),
        ];
        for (time, format, expected) in rows {
            let clock = WallClock::parse_rfc3339(time).unwrap();
            assert_eq!(clock.strftime(format), expected, "{time} {format}");
        }
        assert_eq!(WallClock::from_unix(1_795_176_000).strftime("%F %T"), "2026-11-20 12:00:00");
    }

    #[test]
    fn only_rfc3339_is_parsed() {
        for bad in [
            "",
            "2026-11-20",
            "2026-13-01T00:00:00Z",
            "2026-02-29T00:00:00Z",
            "2026-11-20T24:00:00Z",
            "2026-11-20T12:00:00+1:00",
            "2026-11-20T12:00:00.Z",
            "2026-11-20T12:00:00Zx",
            "2026-1١-20T12:00:00Z",
        ] {
            assert_eq!(WallClock::parse_rfc3339(bad), None, "{bad}");
        }
    }
}
