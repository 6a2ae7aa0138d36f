//! The effective configuration as TOML: what holds, and where it came from. Secrets are masked; the rest can be used as a file again.

use std::fmt::Write as _;

use super::file::Settings;
use super::keys::{KEYS, Key, PROPERTIES, Table};
use super::load::Resolved;
use super::value::{MASK, Setting, quoted};

/// Prints all keys in the order of their table.
pub(super) fn effective_toml(resolved: &Resolved) -> String {
    let mut out = String::new();
    let is_top = |key: &&Key| !key.path.contains('.');
    KEYS.iter().filter(is_top).for_each(|key| line(&mut out, key.path, key, &resolved.common));
    for section in sections() {
        table(&mut out, &format!("[{section}]"), &format!("{section}."), Table::Common, &resolved.common);
        if section == "kafka" {
            properties(&mut out, resolved);
        }
    }
    for monitor in &resolved.monitors {
        table(&mut out, "[[monitor]]", "monitor.", Table::Monitor, monitor);
    }
    for channel in &resolved.channels {
        table(&mut out, "[[alert.channel]]", "alert.channel.", Table::Channel, channel);
    }
    out
}

/// First words of the paths of common keys, in order, each once.
fn sections() -> Vec<&'static str> {
    let mut sections: Vec<_> = KEYS
        .iter()
        .filter(|key| key.table() == Table::Common)
        .filter_map(|key| key.path.split_once('.'))
        .map(|(section, _)| section)
        .collect();
    sections.dedup();
    sections
}

fn table(out: &mut String, header: &str, prefix: &str, of: Table, settings: &Settings) {
    write_line(out, "");
    write_line(out, header);
    for key in KEYS.iter().filter(|key| key.table() == of) {
        if let Some(name) = key.path.strip_prefix(prefix) {
            line(out, name, key, settings);
        }
    }
}

fn properties(out: &mut String, resolved: &Resolved) {
    if resolved.properties.is_empty() {
        return;
    }
    write_line(out, "");
    write_line(out, &format!("[{PROPERTIES}]"));
    for (name, property) in &resolved.properties {
        let value = if property.is_secret { MASK } else { property.value.expose() };
        write_line(out, &format!("{} = {}  # {}", quoted(name), quoted(value), property.source));
    }
}

/// One key; one that is unset as a comment, unless this build has no use for it.
fn line(out: &mut String, name: &str, key: &Key, settings: &Settings) {
    match settings.get(key.path) {
        Some(Setting { value: Some(value), source }) => write_line(out, &format!("{name} = {value}  # {source}")),
        _ if key.unset.is_empty() => {}
        _ => write_line(out, &format!("# {name}: {}", key.unset)),
    }
}

fn write_line(out: &mut String, line: &str) {
    // Writing to a string does not fail.
    writeln!(out, "{line}").unwrap_or_default();
}
