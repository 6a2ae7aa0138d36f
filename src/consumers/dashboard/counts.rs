//! A window's counts in few bytes: most of a point's memory would be zeros otherwise.

/// Counts as LEB128 numbers, one after the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts(Box<[u8]>);

impl Counts {
    pub(super) fn new(counts: &[u64]) -> Self {
        let mut bytes = Vec::with_capacity(counts.len() * 2);
        for &count in counts {
            let mut rest = count;
            while rest >= 0x80 {
                bytes.push(rest as u8 | 0x80);
                rest >>= 7;
            }
            bytes.push(rest as u8);
        }
        Self(bytes.into())
    }

    pub(super) fn to_vec(&self) -> Vec<u64> {
        let mut counts = Vec::new();
        let (mut count, mut shift) = (0_u64, 0);
        for byte in &self.0 {
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
        fn counts_come_back_as_they_were(counts in prop::collection::vec(any::<u64>(), 0..40)) {
            prop_assert_eq!(Counts::new(&counts).to_vec(), counts);
        }
    }

    #[test]
    fn a_count_below_128_takes_one_byte() {
        assert_eq!(Counts::new(&[0, 1, 127, 128]).0.len(), 5);
    }
}
