//! Numbers: digits read many at once, and what double they are.

use std::fmt;

/// A number as it stands there.
#[derive(Clone, Copy, PartialEq)]
pub struct Number<'a> {
    /// ASCII.
    pub(super) bytes: &'a [u8],
    pub(super) is_negative: bool,
    /// Its digits read as one integer, and how many of them stand after the point. `None`: they have an exponent, or are many.
    pub(super) decimal: Option<(u64, u8)>,
}

/// Powers of ten, as far as they and what they are multiplied with are doubles without rounding.
const EXACT_POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
];

/// Integers up to this are doubles without rounding.
const EXACT_INTEGER_MAX: u64 = 1 << 53;

impl<'a> Number<'a> {
    /// As it stands there.
    #[must_use]
    pub fn text(&self) -> &'a str {
        std::str::from_utf8(self.bytes).unwrap_or_default()
    }

    /// The double that is nearest; infinite beyond the doubles.
    ///
    /// Of few digits it is one division of two exact doubles, which rounds once, so rightly (Clinger, How to read floating point numbers accurately, 1990).
    #[must_use]
    #[inline]
    pub fn value(&self) -> f64 {
        match self.decimal {
            Some((digits, decimals)) if digits <= EXACT_INTEGER_MAX && usize::from(decimals) < EXACT_POWERS.len() => {
                let magnitude = digits as f64 / EXACT_POWERS[usize::from(decimals)];
                if self.is_negative { -magnitude } else { magnitude }
            }
            _ => self.parsed(),
        }
    }

    #[cold]
    fn parsed(&self) -> f64 {
        self.text().parse().unwrap_or(f64::NAN)
    }
}

impl fmt::Debug for Number<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.text())
    }
}

/// Up to eight digits, read at once.
pub(super) struct Digits {
    pub(super) count: usize,
    /// The integer that they are.
    pub(super) value: u64,
}

/// A one in each byte: times a byte, that byte eight times.
const BYTES: u64 = u64::MAX / 0xFF;

impl Digits {
    /// The digits that these bytes begin with: all eight are looked at as one integer, without a branch.
    #[inline]
    pub(super) fn at_start_of(bytes: [u8; 8]) -> Self {
        let word = u64::from_le_bytes(bytes);
        // The highest bit of a byte that is no digit: below `0` the difference wraps, above `9` the sum has it. What carries goes to later bytes only.
        let others = (word.wrapping_add(BYTES * (0x7F - 0x39)) | word.wrapping_sub(BYTES * 0x30)) & (BYTES * 0x80);
        let count = (others.trailing_zeros() / 8) as usize;
        // As if as many zeros came before: later bytes are shifted out.
        let digits = (word & (BYTES * 0x0F)).checked_shl(64 - 8 * count as u32).unwrap_or(0);
        // Pairs of digits, then fours, then all (Lemire, Number parsing at a gigabyte per second, 2021).
        let pairs = digits.wrapping_mul(10).wrapping_add(digits >> 8);
        let low = (pairs & 0x0000_00FF_0000_00FF).wrapping_mul(100 + (1_000_000 << 32));
        let high = ((pairs >> 16) & 0x0000_00FF_0000_00FF).wrapping_mul(1 + (10_000 << 32));
        Self {
            count,
            value: low.wrapping_add(high) >> 32,
        }
    }

    /// The integer with these digits after it, which wraps.
    #[inline]
    pub(super) fn append_to(&self, integer: u64) -> u64 {
        const POWERS: [u64; 9] = [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000];
        integer.wrapping_mul(POWERS[self.count]).wrapping_add(self.value)
    }
}
