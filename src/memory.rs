//! How a process's memory is shared out: one bound, `memory_max_bytes`, for all that grows with load and state.
//!
//! ```text
//! memory_max_bytes
//!   ├ the process itself: code, clients, and for each stream thread the epochs that are under way
//!   └ the rest ├ records fetched ahead       a quarter, at most 64 MiB     in equal parts for the input partitions
//!              ├ RocksDB                     a quarter, at most 128 MiB    blocks read, and what is not yet in a file
//!              └ windows of segments         what is left, or `state_cache_max_bytes`
//! ```
//!
//! Not in it, since the configuration decides it and not the load: windows without segments, of each partition and monitor; and 200 bytes for each
//! living segment, of which `max_segments` bounds the number. `docs/capacity.md` reckons with both.

use crate::state::store::StoreOptions;

/// Code, the HTTP server, metrics and librdkafka's threads: what is there before the first record.
const PROCESS_BYTES: usize = 48 << 20;

/// Of each stream thread: an epoch that grows and one that is being committed, each with its events and changed windows (at most 4 MiB), their copies on
/// the way to the brokers and to RocksDB, and what was fetched and is not yet read from its response. While its tasks are restored, what was read and waits
/// to be written is in their place.
const THREAD_BYTES: usize = 32 << 20;

/// What has to be left for fetching, RocksDB and windows.
const REST_MIN_BYTES: usize = 16 << 20;

/// What is left by default: 512 MiB in all with two stream threads.
const REST_USUAL_BYTES: usize = 400 << 20;

const FETCHED_MAX_BYTES: usize = 64 << 20;

const STORE_MAX_BYTES: usize = 128 << 20;

/// Who has how much.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Of records that were fetched and are not yet processed, of all partitions together.
    pub fetched_ahead_bytes: usize,
    /// Of RocksDB.
    pub store: StoreOptions,
    /// Of the windows of segments.
    pub state_cache_bytes: usize,
}

/// Less than that many stream threads need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLittle {
    /// What would do, bytes.
    pub least: usize,
}

impl Memory {
    /// What it is shared out of if nobody says, bytes.
    #[must_use]
    pub fn usual_max_bytes(threads: usize, state_cache_bytes: Option<usize>) -> usize {
        let rest = state_cache_bytes.map_or(0, |said| said.saturating_add(REST_USUAL_BYTES / 2));
        own(threads).saturating_add(rest.max(REST_USUAL_BYTES))
    }

    /// Shares out `max_bytes` in a process with so many stream threads. `state_cache_bytes`: what windows of segments are to have, if that is said.
    ///
    /// # Errors
    /// When it is too little.
    pub fn share(max_bytes: usize, threads: usize, state_cache_bytes: Option<usize>) -> Result<Self, TooLittle> {
        let own = own(threads);
        let said = state_cache_bytes.unwrap_or_default();
        let least = own.saturating_add(REST_MIN_BYTES).saturating_add(said);
        if max_bytes < least {
            return Err(TooLittle { least });
        }
        let rest = max_bytes - own - said;
        let (fetched, store) = ((rest / 4).min(FETCHED_MAX_BYTES), (rest / 4).min(STORE_MAX_BYTES));
        Ok(Self {
            fetched_ahead_bytes: fetched,
            store: StoreOptions {
                block_cache_bytes: store / 2,
                write_buffer_bytes: store / 2,
            },
            state_cache_bytes: state_cache_bytes.unwrap_or(rest - fetched - store),
        })
    }
}

/// What is not shared out.
fn own(threads: usize) -> usize {
    PROCESS_BYTES.saturating_add(THREAD_BYTES.saturating_mul(threads))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn parts_and_the_process_are_never_more_than_the_whole() {
        for (max, threads, cache) in [
            (128, 1, None),
            (128, 2, None),
            (512, 2, None),
            (512, 2, Some(300)),
            (4096, 16, None),
            (1 << 20, 8, Some(1)),
        ] {
            let memory = Memory::share(max * MIB, threads, cache.map(|cache| cache * MIB)).unwrap();
            let store = memory.store.block_cache_bytes + memory.store.write_buffer_bytes;
            let all = own(threads) + memory.fetched_ahead_bytes + store + memory.state_cache_bytes;
            assert!(all <= max * MIB, "{max} MiB, {threads} threads: {memory:?}");
            assert!(
                memory.fetched_ahead_bytes >= REST_MIN_BYTES / 4 && store >= REST_MIN_BYTES / 4,
                "{memory:?}"
            );
            if let Some(cache) = cache {
                assert_eq!(memory.state_cache_bytes, cache * MIB);
            } else {
                assert_eq!(all, max * MIB, "{memory:?}");
            }
        }
    }

    #[test]
    fn usual_bound_is_512_mib_with_two_threads_and_grows_with_what_is_asked_for() {
        assert_eq!(Memory::usual_max_bytes(2, None), 512 * MIB);
        for (threads, cache) in [(1, None), (256, None), (2, Some(MIB)), (2, Some(MIB << 20))] {
            assert!(
                Memory::share(Memory::usual_max_bytes(threads, cache), threads, cache).is_ok(),
                "{threads} {cache:?}"
            );
        }
        let usual = Memory::share(512 * MIB, 2, None).unwrap();
        assert_eq!(
            (
                usual.fetched_ahead_bytes / MIB,
                usual.store.block_cache_bytes / MIB,
                usual.state_cache_bytes / MIB
            ),
            (64, 50, 236)
        );
    }

    #[test]
    fn what_is_too_little_says_what_would_do() {
        for (threads, cache) in [(1, None), (64, None), (2, Some(MIB << 10))] {
            let TooLittle { least } = Memory::share(0, threads, cache).unwrap_err();
            assert_eq!(Memory::share(least - 1, threads, cache), Err(TooLittle { least }));
            assert!(Memory::share(least, threads, cache).is_ok());
        }
        assert_eq!(Memory::share(usize::MAX - 1, usize::MAX, Some(1)), Err(TooLittle { least: usize::MAX }));
    }
}
