//! Durations and points in time as people read them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const DAY: u64 = 86_400;

/// A duration as `H:MM:SS`, with `N day(s), ` before it from a day on, to the nearest second.
pub fn format_duration(duration: Duration) -> String {
    let seconds = duration
        .as_secs()
        .saturating_add(u64::from(duration.subsec_millis() >= 500));
    let (days, rest) = (seconds / DAY, seconds % DAY);
    let time = format!("{}:{:02}:{:02}", rest / 3600, rest / 60 % 60, rest % 60);
    match days {
        0 => time,
        1 => format!("1 day, {time}"),
        _ => format!("{days} days, {time}"),
    }
}

/// A point in time as `YYYY-MM-DD HH:MM UTC`. Times before 1970 show as its start.
pub fn format_utc(time: SystemTime) -> String {
    let seconds = time
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let (year, month, day) = civil_date(seconds / DAY);
    let rest = seconds % DAY;
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02} UTC",
        rest / 3600,
        rest / 60 % 60
    )
}

/// Seconds as a [`Duration`]; 0 for negative and non-finite numbers, at most a million days.
pub fn seconds(value: f64) -> Duration {
    let most = 1e6 * DAY as f64;
    if value.is_finite() && value > 0.0 {
        Duration::from_secs_f64(value.min(most))
    } else {
        Duration::ZERO
    }
}

/// Year, month and day of the Gregorian calendar for days since 1970-01-01. Years are counted from March,
/// so that the leap day comes last.
fn civil_date(days: u64) -> (u64, u64, u64) {
    // Days since 0000-03-01, split into 400-year cycles of 146 097 days.
    let days = days + 719_468;
    let (cycle, day_of_cycle) = (days / 146_097, days % 146_097);
    let year_of_cycle =
        (day_of_cycle - day_of_cycle / 1460 + day_of_cycle / 36_524 - day_of_cycle / 146_096) / 365;
    let day_of_year =
        day_of_cycle - (365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = cycle * 400 + year_of_cycle + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (value, text) in [
            (0.0, "0:00:00"),
            (59.4, "0:00:59"),
            (59.5, "0:01:00"),
            (3661.0, "1:01:01"),
            (86_399.0, "23:59:59"),
            (86_400.0, "1 day, 0:00:00"),
            (200_000.0, "2 days, 7:33:20"),
            (-1.0, "0:00:00"),
            (f64::NAN, "0:00:00"),
            (f64::INFINITY, "0:00:00"),
        ] {
            assert_eq!(format_duration(seconds(value)), text, "{value}");
        }
        assert!(format_duration(seconds(1e300)).starts_with("1000000 days"));
    }

    #[test]
    fn dates() {
        for (value, text) in [
            (0, "1970-01-01 00:00 UTC"),
            (951_782_400, "2000-02-29 00:00 UTC"),
            (1_709_251_199, "2024-02-29 23:59 UTC"),
            (1_709_251_200, "2024-03-01 00:00 UTC"),
            (4_107_542_400, "2100-03-01 00:00 UTC"),
            (1_767_225_599, "2025-12-31 23:59 UTC"),
        ] {
            assert_eq!(format_utc(UNIX_EPOCH + Duration::from_secs(value)), text);
        }
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let mut last = civil_date(0);
        for days in 1..150_000 {
            let (year, month, day) = civil_date(days);
            let (last_year, last_month, last_day) = last;
            let next_day = (year, month, day) == (last_year, last_month, last_day + 1);
            let next_month =
                day == 1 && last_day >= 28 && (year, month) == (last_year, last_month + 1);
            let next_year = (month, day) == (1, 1)
                && (last_month, last_day) == (12, 31)
                && year == last_year + 1;
            assert!(
                next_day || next_month || next_year,
                "{last:?} → {year}-{month}-{day}"
            );
            last = (year, month, day);
        }
    }
}
