//! Numbers and names as people read them. Every number on a page comes through here, so that none that is not finite
//! is ever shown, and every name comes through [`escape`], so that none is ever taken for markup.

use std::borrow::Cow;

/// What stands where a number cannot be told.
pub(super) const NO_NUMBER: &str = "–";

const KIB: f64 = 1024.0;

/// A unit that a whole axis is drawn in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Unit {
    pub(super) name: &'static str,
    /// How much one of it is, in the unit that was measured in.
    pub(super) size: f64,
}

const BYTES: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
const RATES: [&str; 7] = ["B/s", "KiB/s", "MiB/s", "GiB/s", "TiB/s", "PiB/s", "EiB/s"];

fn binary_unit(names: [&'static str; 7], value: f64) -> Unit {
    let mut unit = Unit { name: names[0], size: 1.0 };
    for name in names.into_iter().skip(1) {
        // 999.5 is shown as 1000, which is better said in the next unit.
        if value.abs() < unit.size * 999.5 {
            break;
        }
        unit = Unit { name, size: unit.size * KIB };
    }
    unit
}

/// The unit for rates up to `largest` bytes per second.
pub(super) fn rate_unit(largest: f64) -> Unit {
    binary_unit(RATES, largest)
}

/// The unit for sizes up to `largest` bytes.
pub(super) fn size_unit(largest: f64) -> Unit {
    binary_unit(BYTES, largest)
}

/// The unit for an axis of time that is `seconds` long.
pub(super) fn time_unit(seconds: f64) -> Unit {
    if seconds < 1.0 {
        Unit { name: "ms", size: 0.001 }
    } else if seconds <= 300.0 {
        Unit { name: "s", size: 1.0 }
    } else if seconds <= 3.0 * 3600.0 {
        Unit { name: "min", size: 60.0 }
    } else {
        Unit { name: "h", size: 3600.0 }
    }
}

/// Three digits that count: `0.123`, `4.56`, `78.9`, `1,234`.
pub(super) fn significant(value: f64) -> String {
    if !value.is_finite() {
        return NO_NUMBER.to_owned();
    }
    let size = value.abs();
    if size >= 1e15 {
        return format!("{value:.2e}");
    }
    let text = if size >= 99.95 {
        format!("{value:.0}")
    } else if size >= 9.995 {
        format!("{value:.1}")
    } else if size >= 0.9995 {
        format!("{value:.2}")
    } else if size >= 0.0005 {
        format!("{value:.3}")
    } else {
        "0".to_owned()
    };
    grouped(&text)
}

/// A number without digits that say nothing: `0.5`, `20`, `1,500`.
pub(super) fn plain(value: f64) -> String {
    if !value.is_finite() {
        return NO_NUMBER.to_owned();
    }
    if value.abs() >= 1e15 {
        return format!("{value:.0e}");
    }
    // More digits than a tick can need: the steps of an axis are 1, 2 or 5 of a power of ten.
    let decimals = if value.abs() >= 1.0 || value == 0.0 { 3 } else { 6 };
    let text = format!("{value:.decimals$}");
    grouped(text.trim_end_matches('0').trim_end_matches('.'))
}

/// A number beside an axis, where there is room for five letters: `2,000`, `20 k`, `1.5 M`.
pub(super) fn tick(value: f64) -> String {
    let size = value.abs();
    if size < 1e4 || !value.is_finite() {
        plain(value)
    } else if size < 1e6 {
        format!("{} k", plain(value / 1e3))
    } else if size < 1e9 {
        format!("{} M", plain(value / 1e6))
    } else {
        format!("{value:.0e}")
    }
}

/// Commas between thousands.
fn grouped(text: &str) -> String {
    let (whole, rest) = text.find('.').map_or((text, ""), |point| text.split_at(point));
    let (sign, digits) = whole.strip_prefix('-').map_or(("", whole), |digits| ("-", digits));
    let mut out = String::from(sign);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out + rest
}

/// `12,345`.
pub(super) fn count(value: u64) -> String {
    grouped(&value.to_string())
}

/// `1.25 GiB`.
pub(super) fn size(bytes: f64) -> String {
    in_unit(bytes, size_unit(bytes))
}

/// A size that is a round number in its unit, without empty decimals: `4 MiB`.
pub(super) fn round_size(bytes: u64) -> String {
    let unit = size_unit(bytes as f64);
    format!("{} {}", plain((bytes as f64 / unit.size * 100.0).round() / 100.0), unit.name)
}

/// `58.2 MiB/s`.
pub(super) fn rate(bytes_per_second: f64) -> String {
    in_unit(bytes_per_second, rate_unit(bytes_per_second))
}

fn in_unit(value: f64, unit: Unit) -> String {
    if !value.is_finite() {
        return NO_NUMBER.to_owned();
    }
    // Bytes come whole.
    let number = if unit.size > 1.0 { significant(value / unit.size) } else { plain(value.round()) };
    format!("{number} {}", unit.name)
}

/// `450 ms`, `38.2 s`, `12 min 5 s`, `3 h 20 min`.
pub(super) fn duration(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return NO_NUMBER.to_owned();
    }
    if seconds < 0.9995 {
        return milliseconds(seconds * 1000.0);
    }
    if seconds < 99.95 {
        return format!("{} s", significant(seconds));
    }
    let whole = seconds.round();
    if whole < 3600.0 {
        return format!("{} min {} s", (whole / 60.0).floor(), whole % 60.0);
    }
    let minutes = (seconds / 60.0).round();
    format!("{} h {} min", plain((minutes / 60.0).floor()), minutes % 60.0)
}

/// `12.5 ms`, `1.20 s`.
pub(super) fn milliseconds(value: f64) -> String {
    if !value.is_finite() {
        NO_NUMBER.to_owned()
    } else if value >= 999.5 {
        format!("{} s", significant(value / 1000.0))
    } else {
        format!("{} ms", significant(value))
    }
}

/// A part of one as a percentage: `0.4 %`, `12 %`.
pub(super) fn percent(part: f64) -> String {
    if !part.is_finite() {
        return NO_NUMBER.to_owned();
    }
    let value = part * 100.0;
    if value == 0.0 {
        "0 %".to_owned()
    } else if value < 0.1 {
        "< 0.1 %".to_owned()
    } else if value < 9.95 {
        format!("{value:.1} %")
    } else {
        format!("{} %", plain(value.round()))
    }
}

/// `a / b`, or 0 where that is no number.
pub(super) fn ratio(a: f64, b: f64) -> f64 {
    let ratio = a / b;
    if ratio.is_finite() { ratio } else { 0.0 }
}

/// A coordinate: short, and never anything but a number.
pub(super) fn coordinate(value: f64) -> String {
    if !value.is_finite() {
        return "0".to_owned();
    }
    let text = format!("{:.1}", value.clamp(-1e6, 1e6));
    let text = text.strip_suffix(".0").unwrap_or(&text);
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

/// A text that is not longer than anything that a person reads on a page; somebody's name may be a megabyte.
pub(super) fn shortened(text: &str) -> Cow<'_, str> {
    const LONGEST: usize = 500;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
        None => Cow::Borrowed(text),
    }
}

/// A text as HTML shows it, in an element or in an attribute's quotes, and [`shortened`].
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in shortened(text).chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' => out.push('\n'),
            // HTML has no way to write them.
            control if control.is_control() => out.push('\u{fffd}'),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_never_infinite() {
        assert_eq!(significant(0.12345), "0.123");
        assert_eq!(significant(9.996), "10.0");
        assert_eq!(significant(1_234_567.0), "1,234,567");
        assert_eq!(significant(-1234.0), "-1,234");
        assert_eq!(significant(f64::NAN), NO_NUMBER);
        assert_eq!(tick(2000.0), "2,000");
        assert_eq!(tick(20_000.0), "20 k");
        assert_eq!(tick(1_500_000.0), "1.5 M");
        assert_eq!(tick(2e10), "2e10");
        assert_eq!(plain(0.05), "0.05");
        assert_eq!(plain(100.0), "100");
        assert_eq!(plain(f64::INFINITY), NO_NUMBER);
        assert_eq!(count(1_000), "1,000");
        assert_eq!(count(u64::MAX), "18,446,744,073,709,551,615");
        assert_eq!(coordinate(f64::NAN), "0");
        assert_eq!(coordinate(f64::INFINITY), "0");
        assert_eq!(coordinate(1e300), "1000000");
        assert_eq!(coordinate(-0.01), "0");
        assert_eq!(significant(ratio(0.0, 0.0)), "0");
        assert!(significant(1e300).len() < 12);
    }

    #[test]
    fn units_fit_what_is_shown() {
        assert_eq!(size(999.0), "999 B");
        assert_eq!(size(1023.0), "0.999 KiB");
        assert_eq!(size(12.0), "12 B");
        assert_eq!(size(60.0 * 1024.0 * 1024.0), "60.0 MiB");
        assert_eq!(size(u64::MAX as f64), "16.0 EiB");
        assert_eq!(rate(f64::INFINITY), NO_NUMBER);
        assert_eq!(round_size(4 << 20), "4 MiB");
        assert_eq!(round_size(512), "512 B");
        assert_eq!(round_size(3 << 19), "1.5 MiB");
        assert_eq!(duration(0.0), "0 ms");
        assert_eq!(duration(59.97), "60.0 s");
        assert_eq!(duration(3599.7), "1 h 0 min");
        assert_eq!(duration(725.0), "12 min 5 s");
        assert_eq!(duration(f64::NAN), NO_NUMBER);
        assert_eq!(milliseconds(1200.0), "1.20 s");
        assert_eq!(percent(0.0004), "< 0.1 %");
        assert_eq!(percent(0.125), "13 %");
    }

    #[test]
    fn a_name_is_never_long() {
        let long = "é".repeat(5000);
        assert_eq!(escape(&long), "é".repeat(500) + "…");
        assert_eq!(escape(&long[..1000]), "é".repeat(500));
    }

    #[test]
    fn a_name_is_never_markup() {
        assert_eq!(
            escape("<script>'&\"\u{7}</script>"),
            "&lt;script&gt;&#39;&amp;&quot;\u{fffd}&lt;/script&gt;"
        );
    }
}
