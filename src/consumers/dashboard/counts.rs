//! A window's counts in few bytes: most of a point's memory would be zeros otherwise.

/// Bytes that stand in the point itself: counts of ten bins of a window of thousands. Small pieces of memory of their own, between the texts of events
/// that come and go, would leave holes: they were half of the process.
const INLINE: usize = 30;

/// Counts as LEB128 numbers, one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Counts {
    Inline { length: u8, bytes: [u8; INLINE] },
    Boxed(Box<[u8]>),
}

impl Default for Counts {
    fn default() -> Self {
        Self::new(&[])
    }
}

impl Counts {
    pub(super) fn new(counts: &[u64]) -> Self {
        let mut written = Vec::with_capacity(counts.len() * 2);
        for &count in counts {
            let mut rest = count;
            while rest >= 0x80 {
                written.push(rest as u8 | 0x80);
                rest >>= 7;
            }
            written.push(rest as u8);
        }
        let mut bytes = [0; INLINE];
        match (bytes.get_mut(..written.len()), u8::try_from(written.len())) {
            (Some(place), Ok(length)) => {
                place.copy_from_slice(&written);
                Self::Inline { length, bytes }
            }
            _ => Self::Boxed(written.into()),
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Inline { length, bytes } => &bytes[..usize::from(*length)],
            Self::Boxed(bytes) => bytes,
        }
    }

    pub(super) fn to_vec(&self) -> Vec<u64> {
        let mut counts = Vec::new();
        let (mut count, mut shift) = (0_u64, 0);
        for byte in self.bytes() {
            count |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                counts.push(count);
                (count, shift) = (0, 0);
            }
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn counts_come_back_as_they_were(counts in prop::collection::vec(any::<u64>(), 0..40), small in prop::collection::vec(0_u64..300, 0..40)) {
            prop_assert_eq!(Counts::new(&counts).to_vec(), counts);
            prop_assert_eq!(Counts::new(&small).to_vec(), small);
        }
    }

    #[test]
    fn a_count_below_128_takes_one_byte() {
        assert_eq!(Counts::new(&[0, 1, 127, 128]).bytes().len(), 5);
    }
}
