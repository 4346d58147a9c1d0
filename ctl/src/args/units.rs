//! Durations as scripts write them (`disco.d.ts`): `"250ms" | "30s" | "5m" | "1h" | "7d"`, or milliseconds.

use crate::message::Failure;

/// Milliseconds, or `None` when it is no duration or does not fit.
pub fn duration_ms(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let scale: u64 = match unit {
        "" | "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(scale)
}

/// Milliseconds, more than none. A bare number is milliseconds to a script; a person who types 5 means something else.
///
/// # Errors
/// It is no duration with a unit.
pub fn duration(text: &str) -> Result<u64, Failure> {
    duration_ms(text)
        .filter(|ms| *ms > 0 && !text.ends_with(|last: char| last.is_ascii_digit()))
        .ok_or_else(|| Failure::broke(format!("`{text}` is not a duration")).hint("write it as 250ms, 30s, 5m, 1h or 7d"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn durations_are_read_as_scripts_write_them() {
        for (text, ms) in [
            ("250ms", Some(250)),
            ("30s", Some(30_000)),
            ("5m", Some(300_000)),
            ("1h", Some(3_600_000)),
            ("7d", Some(604_800_000)),
            ("1500", Some(1_500)),
            ("", None),
            ("s", None),
            ("-1s", None),
            ("1 s", None),
            ("1w", None),
            ("99999999999999999999", None),
            ("18446744073709551615d", None),
        ] {
            assert_eq!(super::duration_ms(text), ms, "{text:?}");
        }
    }
}
