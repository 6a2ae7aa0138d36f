//! What is kept of a sequence of values: how many, and a digest of all of them in their order.

use sha2::{Digest as _, Sha256};

/// Equal for equal sequences, and for no others that anybody could find.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Digest {
    values: u64,
    chain: [u8; 32],
}

impl Digest {
    /// Adds the next value.
    pub(super) fn push(&mut self, value: &[u8]) {
        self.values += 1;
        self.chain = Sha256::new().chain_update(self.chain).chain_update(value).finalize().into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[&str]) -> Digest {
        let mut digest = Digest::default();
        values.iter().for_each(|value| digest.push(value.as_bytes()));
        digest
    }

    #[test]
    fn order_number_and_borders_of_values_count() {
        assert!(of(&["a", "b"]) == of(&["a", "b"]));
        for other in [&["b", "a"][..], &["a"], &["a", "b", "b"], &["ab"], &["a", "c"]] {
            assert!(of(other) != of(&["a", "b"]), "{other:?}");
        }
    }
}
