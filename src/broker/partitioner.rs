//! Which partition a key belongs to: murmur2, as Java's default partitioner computes it, so that producers of other languages agree.

use leeway_topology::ids::Partition;

/// The partition of `key` in a topic of `partitions` partitions (0 counts as 1).
#[must_use]
pub fn partition(key: &[u8], partitions: u32) -> Partition {
    // The sign bit is dropped, not the sign taken away: so does Java.
    let positive = murmur2(key) & 0x7fff_ffff;
    let partition = positive % partitions.clamp(1, i32::MAX.unsigned_abs());
    Partition(i32::try_from(partition).unwrap_or_default())
}

/// 32-bit MurmurHash2 with Kafka's seed.
fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    // Java's length is an int; longer keys do not exist in Kafka.
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
    let (words, tail) = data.as_chunks::<4>();
    let mut hash = SEED ^ length;
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !tail.is_empty() {
        for (place, byte) in tail.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * place);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of Apache Kafka's `UtilsTest#testMurmur2`.
    const KAFKA_VECTORS: [(&str, i32); 6] = [
        ("21", -973_932_308),
        ("foobar", -790_332_482),
        ("a-little-bit-long-string", -985_981_536),
        ("a-little-bit-longer-string", -1_486_304_829),
        ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
        ("abc", 479_470_107),
    ];

    #[test]
    fn murmur2_gives_what_apache_kafkas_own_test_expects() {
        for (key, expected) in KAFKA_VECTORS {
            assert_eq!(murmur2(key.as_bytes()).cast_signed(), expected, "{key}");
        }
    }

    #[test]
    fn partition_drops_the_sign_bit_and_takes_the_remainder() {
        for (key, hash) in KAFKA_VECTORS {
            let expected = (hash & 0x7fff_ffff) % 7;
            assert_eq!(partition(key.as_bytes(), 7), Partition(expected), "{key}");
        }
        assert_eq!(partition(b"abc", 1), Partition(0));
        assert_eq!(partition(b"abc", 0), Partition(0), "no partitions count as one");
    }
}
