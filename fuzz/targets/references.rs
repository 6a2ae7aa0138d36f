//! Reference documents: each is taken or refused, and one that is taken is written back as the same reference.

#![no_main]

use leeway_topology::reference::Reference;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    match Reference::from_json(bytes) {
        Ok(reference) => {
            let again = Reference::from_json(&reference.to_json()).expect("what was written can be read");
            assert_eq!(reference.version(), again.version());
            for feature in reference.features() {
                (0..feature.bin_count()).for_each(|bin| drop(feature.label(bin)));
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
