//! How figures, times and bytes are shown.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

/// Text as it is, but for what would break a line or a column.
pub(super) fn shown(text: &str) -> String {
    let is_plain = |letter: char| !letter.is_control() && letter != '\\';
    text.chars().fold(String::new(), |mut shown, letter| {
        if is_plain(letter) {
            shown.push(letter);
        } else {
            shown.extend(letter.escape_default());
        }
        shown
    })
}

/// The same for bytes, which may be no text.
pub(super) fn shown_bytes(bytes: &[u8]) -> String {
    std::str::from_utf8(bytes).map_or_else(|_| bytes.escape_ascii().to_string(), shown)
}

/// The members `key`, or `key_hex` for what is no UTF-8.
pub(super) fn set_key(object: &mut Value, key: &[u8]) {
    match std::str::from_utf8(key) {
        Ok(text) => object["key"] = json!(text),
        Err(_) => object["key_hex"] = json!(hex(key)),
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `12.3 MiB`.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut unit = 0;
    let mut rest = bytes;
    while rest >= 1024 && unit + 1 < UNITS.len() {
        rest /= 1024;
        unit += 1;
    }
    let shift = 10 * unit;
    let tenths = (u128::from(bytes) * 10) >> shift;
    match unit {
        0 => format!("{bytes} B"),
        _ => format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit]),
    }
}

/// Milliseconds since 1970, or null.
pub(super) fn unix_ms(time: Option<SystemTime>) -> Value {
    let since = time.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    json!(since.and_then(|since| u64::try_from(since.as_millis()).ok()))
}

/// `2026-01-31T12:00:00Z`, or a dash.
pub(super) fn date(time: Option<SystemTime>) -> String {
    let since = time.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let Some(seconds) = since.map(|since| since.as_secs()) else { return "-".to_owned() };
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// The date of a day since 1970, in the Gregorian calendar.
fn civil(mut days: u64) -> (u64, u64, u64) {
    let is_leap = |year: u64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    // 400 years have 146,097 days.
    let mut year = 1970 + days / 146_097 * 400;
    days %= 146_097;
    while days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let february = 28 + u64::from(is_leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    (year, month, days + 1)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_are_shown_as_dates() {
        let at = |seconds| date(Some(UNIX_EPOCH + Duration::from_secs(seconds)));
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(at(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(at(951_868_799), "2000-02-29T23:59:59Z");
        assert_eq!(at(1_767_225_600), "2026-01-01T00:00:00Z");
        assert_eq!(at(4_107_542_399), "2100-02-28T23:59:59Z");
        assert_eq!(at(4_107_542_400), "2100-03-01T00:00:00Z");
        assert_eq!(at(13_574_649_599), "2400-02-29T23:59:59Z");
        assert_eq!(date(None), "-");
    }

    #[test]
    fn sizes_and_bytes_are_shown_in_one_column() {
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(u64::MAX), "16383.9 PiB");
        assert_eq!(shown("a\tb\nü\\"), "a\\tb\\nü\\\\");
        assert_eq!(shown_bytes(b"\xff\t"), "\\xff\\t");
        assert_eq!(hex(b"\x00\xff"), "00ff");
    }
}
