//! Times and sizes as people write them: `60s`, `15m`, `12GiB`, `75%`.

use std::time::Duration;

/// Idle time before a model is unloaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepAlive {
    /// This long after its last request.
    For(Duration),
    /// Never: the model is pinned.
    Forever,
}

/// How much of the host's memory the models together may use.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MemoryLimit {
    /// What the machine, its cgroups and its resource limits allow.
    Auto,
    /// At most this many bytes of it.
    Bytes(u64),
    /// At most this share of it, above 0 and at most 1.
    Share(f64),
}

/// A time such as `500ms`, `60s`, `15m`, `2h` or `0`; fractions are allowed.
///
/// # Errors
/// One sentence that says what was expected.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text);
    let seconds = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "" if number == "0" => 1.0,
        _ => return Err(format!("`{text}` has no unit that is a time")),
    };
    let value: f64 = number.parse().map_err(|_| format!("`{text}` does not begin with a number"))?;
    Duration::try_from_secs_f64(value * seconds)
        .ok()
        .filter(|time| time.as_secs() <= 10 * 365 * 24 * 3600)
        .ok_or_else(|| format!("`{text}` is longer than ten years"))
}

/// A size in bytes such as `512MiB`, `12GiB`, `2GB` or `1024`; fractions are allowed.
///
/// # Errors
/// One sentence that says what was expected.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text);
    let bytes: f64 = match unit {
        "" | "B" => 1.0,
        "KiB" => 1024.0,
        "MiB" => 1024.0 * 1024.0,
        "GiB" => 1024.0 * 1024.0 * 1024.0,
        "TiB" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        "kB" | "KB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        "TB" => 1e12,
        _ => return Err(format!("`{text}` has no unit that is a size")),
    };
    let value: f64 = number.parse().map_err(|_| format!("`{text}` does not begin with a number"))?;
    let size = value * bytes;
    if size.is_finite() && size < (1u64 << 53) as f64 { Ok(size as u64) } else { Err(format!("`{text}` is more than any machine has")) }
}

/// `auto`, a size, or a share such as `75%`.
pub(super) fn parse_memory_limit(text: &str) -> Result<MemoryLimit, String> {
    if text == "auto" {
        return Ok(MemoryLimit::Auto);
    }
    let Some(percent) = text.strip_suffix('%') else { return parse_bytes(text).map(MemoryLimit::Bytes) };
    match percent.trim().parse::<f64>() {
        Ok(value) if value > 0.0 && value <= 100.0 => Ok(MemoryLimit::Share(value / 100.0)),
        _ => Err(format!("`{text}` is no share between 0% and 100%")),
    }
}

/// `forever` or a time.
pub(super) fn parse_keep_alive(text: &str) -> Result<KeepAlive, String> {
    if text == "forever" { Ok(KeepAlive::Forever) } else { parse_duration(text).map(KeepAlive::For) }
}

/// Splits `12 GiB` into its number and its unit. A sign stays with the unit, so that negative values are refused.
fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    (&text[..end], text[end..].trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_their_unit() {
        let check = |text: &str, ms: u64| assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        check("0", 0);
        check("0s", 0);
        check("500ms", 500);
        check("60s", 60_000);
        check("1.5m", 90_000);
        check("15 m", 900_000);
        check("2h", 7_200_000);
        for wrong in ["", "60", "s", "-1s", "1d", "1e3s", "99999999999h", "1..2s", "∞s"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_are_read_with_their_unit() {
        let check = |text: &str, bytes: u64| assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        check("0", 0);
        check("1024", 1024);
        check("512MiB", 512 << 20);
        check("1.5 GiB", 3 << 29);
        check("2GB", 2_000_000_000);
        for wrong in ["", "GiB", "-1GiB", "1 gib", "1e3", "99999999TiB", "nanB"] {
            assert!(parse_bytes(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn memory_limits_are_auto_sizes_or_shares() {
        assert_eq!(parse_memory_limit("auto"), Ok(MemoryLimit::Auto));
        assert_eq!(parse_memory_limit("12GiB"), Ok(MemoryLimit::Bytes(12 << 30)));
        assert_eq!(parse_memory_limit("75%"), Ok(MemoryLimit::Share(0.75)));
        for wrong in ["0%", "101%", "nan%", "-5%", "half"] {
            assert!(parse_memory_limit(wrong).is_err(), "{wrong}");
        }
    }
}
