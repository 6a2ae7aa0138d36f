//! Typed access to settings.

use std::collections::BTreeMap;

use leeway_topology::field::Pointer;

use super::file::Settings;
use super::value::{Secret, Setting, Source, Value};

/// Typed access. What was refused reads as nothing; its fault keeps the configuration from being used.
pub(super) struct View<'a>(pub(super) &'a Settings);

impl View<'_> {
    pub(super) fn value(&self, path: &str) -> Option<&Value> {
        self.0.get(path)?.value.as_ref()
    }

    pub(super) fn optional_text(&self, path: &str) -> Option<String> {
        match self.value(path)? {
            Value::Text(text) => Some(text.clone()),
            _ => None,
        }
    }

    pub(super) fn text(&self, path: &str) -> String {
        self.optional_text(path).unwrap_or_default()
    }

    pub(super) fn secret(&self, path: &str) -> Option<Secret> {
        match self.value(path)? {
            Value::Secret(secret) => Some(secret.clone()),
            _ => None,
        }
    }

    pub(super) fn optional_integer(&self, path: &str) -> Option<u64> {
        match self.value(path)? {
            Value::Integer(number) => Some(*number),
            _ => None,
        }
    }

    pub(super) fn integer(&self, path: &str) -> u64 {
        self.optional_integer(path).unwrap_or_default()
    }

    pub(super) fn is_on(&self, path: &str) -> bool {
        self.value(path) == Some(&Value::Boolean(true))
    }

    pub(super) fn optional_size(&self, path: &str) -> Option<usize> {
        Some(usize::try_from(self.optional_integer(path)?).unwrap_or(usize::MAX))
    }

    pub(super) fn size(&self, path: &str) -> usize {
        self.optional_size(path).unwrap_or_default()
    }

    pub(super) fn port(&self, path: &str) -> u16 {
        u16::try_from(self.integer(path)).unwrap_or_default()
    }

    pub(super) fn decimal(&self, path: &str) -> Option<f64> {
        match self.value(path)? {
            Value::Decimal(number) => Some(*number),
            _ => None,
        }
    }

    pub(super) fn list(&self, path: &str) -> Option<Vec<String>> {
        match self.value(path)? {
            Value::List(items) => Some(items.clone()),
            _ => None,
        }
    }

    pub(super) fn table(&self, path: &str) -> BTreeMap<String, Value> {
        match self.value(path) {
            Some(Value::Table(values)) => values.clone(),
            _ => BTreeMap::new(),
        }
    }

    /// A table of pointers; their rule has refused all others.
    pub(super) fn pointers(&self, path: &str) -> BTreeMap<String, Pointer> {
        let pointer = |value: Value| match value {
            Value::Text(text) => text.parse::<Pointer>().ok(),
            _ => None,
        };
        let entries = self.table(path).into_iter();
        entries.filter_map(|(feature, value)| Some((feature, pointer(value)?))).collect()
    }

    /// `monitor.window.every = 300 (leeway.toml line 3)`
    pub(super) fn named(&self, path: &str) -> String {
        match self.0.get(path) {
            Some(Setting { value: Some(value), source }) => format!("{path} = {value} ({source})"),
            _ => path.to_owned(),
        }
    }
}

/// Where the value of `path` came from.
pub(super) fn source_of<'a>(settings: &'a Settings, path: &str) -> &'a Source {
    settings.get(path).map_or(&Source::Default, |setting| &setting.source)
}
