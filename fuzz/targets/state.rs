//! Keys and values of the state and the changelog, and drift events. What can be read is written back as the same value.

#![no_main]

use std::fmt::Debug;

use leeway::epoch::EpochTag;
use leeway::task::progress::{Checkpoint, Progress};
use leeway_topology::codec::{self, take_component};
use leeway_topology::event::DriftEvent;
use leeway_topology::state::{KeyText, TimeWindowHead, WindowHead};
use leeway_topology::window::Pane;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((kind, bytes)) = input.split_first() else { return };
    match kind % 8 {
        0 => same(|bytes| codec::decode::<WindowHead>(bytes), codec::encode, bytes),
        1 => same(|bytes| codec::decode::<Pane>(bytes), codec::encode, bytes),
        2 => same(Progress::from_bytes, Progress::to_bytes, bytes),
        3 => same(Checkpoint::from_bytes, Checkpoint::to_bytes, bytes),
        4 => same(DriftEvent::from_json, DriftEvent::to_json, bytes),
        6 => same(|bytes| codec::decode::<TimeWindowHead>(bytes), codec::encode, bytes),
        5 => {
            assert!(take_component(bytes).is_none_or(|(_, rest)| rest.len() < bytes.len()));
            assert!(!KeyText(bytes).to_string().contains('\n'));
        }
        _ => {
            let text = String::from_utf8_lossy(bytes);
            assert!(!EpochTag::is_ours(&text) || text.starts_with("leeway/"));
        }
    }
});

fn same<T: PartialEq + Debug, E>(read: impl Fn(&[u8]) -> Result<T, E>, write: impl Fn(&T) -> Vec<u8>, bytes: &[u8]) {
    if let Ok(value) = read(bytes) {
        let again = read(&write(&value)).ok().expect("what was written can be read");
        assert_eq!(value, again);
    }
}
