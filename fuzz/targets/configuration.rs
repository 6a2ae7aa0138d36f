//! Configuration files, and one variable of the environment behind the first NUL: a configuration, or all faults in words.

#![no_main]

use std::collections::BTreeMap;
use std::path::Path;

use leeway::config::keys::KEYS;
use leeway::config::{ConfigFlags, load};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (file, variable) = text.split_once('\0').unwrap_or((text, ""));
    let named: Vec<_> = KEYS.iter().filter_map(|key| key.variable).collect();
    let environment: BTreeMap<String, String> = named
        .get(file.len() % named.len())
        .map(|name| ((*name).to_owned(), variable.to_owned()))
        .into_iter()
        .collect();
    match load(&ConfigFlags::default(), &environment, Some((Path::new("leeway.toml"), file))) {
        Ok(config) => {
            // What is printed as the effective configuration is one.
            let printed = config.effective_toml();
            assert!(!printed.is_empty());
            config.monitors.iter().for_each(|monitor| drop(monitor.to_monitor()));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
