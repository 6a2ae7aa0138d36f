//! Values of keys, where they came from, and how texts become values.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use super::keys::{Item, Key, Kind};
use super::rules::{FEATURE, POSITIVE, Rule, SHARE};

/// Stands for a secret wherever something is printed.
pub const MASK: &str = "***";

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides a text.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text itself: only for handing it on.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

/// A key's value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A text.
    Text(String),
    /// A text that is never printed.
    Secret(Secret),
    /// A whole number.
    Integer(u64),
    /// A number.
    Decimal(f64),
    /// Yes or no.
    Boolean(bool),
    /// Texts.
    List(Vec<String>),
    /// Values by name.
    Table(BTreeMap<String, Value>),
}

impl Value {
    /// Whether it is a list with this item.
    #[must_use]
    pub fn holds(&self, item: &str) -> bool {
        matches!(self, Self::List(items) if items.iter().any(|own| own == item))
    }

    /// Whether it is a list of nothing.
    #[must_use]
    pub fn is_empty_list(&self) -> bool {
        matches!(self, Self::List(items) if items.is_empty())
    }
}

/// As TOML; a secret as [`MASK`].
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(&quoted(text)),
            Self::Secret(_) => f.write_str(&quoted(MASK)),
            Self::Integer(number) => number.fmt(f),
            // `{:?}` keeps the point, which TOML needs: 1.0.
            Self::Decimal(number) => write!(f, "{number:?}"),
            Self::Boolean(flag) => flag.fmt(f),
            Self::List(items) => write!(f, "[{}]", items.iter().map(|item| quoted(item)).collect::<Vec<_>>().join(", ")),
            Self::Table(values) => {
                let entries = values.iter().map(|(name, value)| format!("{} = {value}", bare_or_quoted(name)));
                write!(f, "{{ {} }}", entries.collect::<Vec<_>>().join(", "))
            }
        }
    }
}

/// A duration in words, `1h 30m`, in whole milliseconds.
#[must_use]
pub fn duration_ms(text: &str) -> Option<u64> {
    let duration = humantime::parse_duration(text).ok()?;
    let whole = duration.subsec_nanos().is_multiple_of(1_000_000);
    u64::try_from(duration.as_millis()).ok().filter(|_| whole)
}

/// A TOML key.
fn bare_or_quoted(name: &str) -> String {
    let is_bare = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
    if is_bare { name.to_owned() } else { quoted(name) }
}

/// A TOML string.
#[must_use]
pub fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// `--window-size`
    Flag(&'static str),
    /// `environment DRIFT_WINDOW_SIZE`
    Environment(&'static str),
    /// `leeway.toml line 3`
    File {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
    },
    /// Nobody set it.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => write!(f, "--{flag}"),
            Self::Environment(variable) => write!(f, "environment {variable}"),
            Self::File { path, line } => write!(f, "{} line {line}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// A key's value with its source. No value: unset, or refused.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    /// The value.
    pub value: Option<Value>,
    /// Where it came from.
    pub source: Source,
}

impl Key {
    /// Reads a text of the command line or the environment.
    ///
    /// # Errors
    /// What is allowed.
    pub(super) fn parse(&self, text: &str) -> Result<Value, String> {
        let text = text.trim();
        let value = match self.kind {
            Kind::Text(_) | Kind::Choice(_) if self.secret => Value::Secret(Secret::new(text.to_owned())),
            Kind::Text(_) | Kind::Choice(_) => Value::Text(text.to_owned()),
            Kind::Integer { .. } => Value::Integer(text.parse().map_err(|_| self.allowed())?),
            Kind::Extent { .. } => text.parse().map_or_else(|_| Value::Text(text.to_owned()), Value::Integer),
            Kind::Decimal(_) => Value::Decimal(text.parse().map_err(|_| self.allowed())?),
            Kind::Boolean => Value::Boolean(text.parse().map_err(|_| self.allowed())?),
            Kind::List(_) => Value::List(
                text.split(',')
                    .map(|item| item.trim().to_owned())
                    .filter(|item| !item.is_empty())
                    .collect(),
            ),
            Kind::ByFeature(_) => return Err(self.allowed()),
        };
        self.check(value)
    }

    /// Checks a value against the key's rule.
    ///
    /// # Errors
    /// What is allowed.
    pub(super) fn check(&self, value: Value) -> Result<Value, String> {
        let sound = match (&self.kind, &value) {
            (Kind::Text(rule), Value::Text(text)) => (rule.accepts)(text),
            (Kind::Text(rule), Value::Secret(secret)) => (rule.accepts)(secret.expose()),
            (Kind::Choice(words), Value::Text(text)) => words.contains(&text.as_str()),
            (Kind::Integer { min, max }, Value::Integer(number)) => (min..=max).contains(&number),
            (Kind::Extent { max }, Value::Integer(records)) => (&1..=max).contains(&records),
            (Kind::Extent { .. }, Value::Text(text)) => duration_ms(text).is_some_and(|ms| ms > 0),
            (Kind::Decimal(rule), Value::Decimal(number)) => (rule.accepts)(number),
            (Kind::Boolean, Value::Boolean(_)) => true,
            (Kind::List(rule), Value::List(items)) => {
                let unique = items.iter().enumerate().all(|(index, item)| !items[..index].contains(item));
                unique && items.iter().all(|item| (rule.accepts)(item))
            }
            (Kind::ByFeature(item), Value::Table(values)) => values.iter().all(|(feature, value)| (FEATURE.accepts)(feature) && item.accepts(value)),
            _ => false,
        };
        if !sound {
            return Err(self.allowed());
        }
        match (self.unavailable)(&value) {
            Some(reason) => Err(reason.to_owned()),
            None => Ok(value),
        }
    }

    /// What is allowed, as the end of a fault's sentence.
    pub(super) fn allowed(&self) -> String {
        match self.kind {
            Kind::Text(rule) => format!("must be {}", rule.allowed),
            Kind::Integer { min, max } => format!("must be a whole number from {min} to {max}"),
            Kind::Extent { max } => format!("must be a whole number from 1 to {max}, or, with kind = \"time\", a duration such as 5m"),
            Kind::Decimal(rule) => format!("must be {}", rule.allowed),
            Kind::Boolean => "must be true or false".to_owned(),
            Kind::Choice(words) => format!(
                "must be one of {}",
                words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
            ),
            Kind::List(rule) => format!("must be a list of {}", rule.allowed),
            Kind::ByFeature(Item::Decimal(rule)) => format!("must be a table of features, each with {}", rule.allowed),
            Kind::ByFeature(Item::Text(rule)) => format!("must be a table of features, each with {}", rule.allowed),
            Kind::ByFeature(Item::Thresholds) => {
                "must be a table of features, each with { possible_drift = NUMBER, drift = NUMBER } (or one of them) above 0".to_owned()
            }
            Kind::ByFeature(Item::Quality) => format!(
                "must be a table of features, each with {{ missing = NUMBER, other = NUMBER, out_of_range = NUMBER }} (or some of them), each {}",
                SHARE.allowed
            ),
        }
    }
}

impl Item {
    /// Whether a feature may have this value.
    fn accepts(&self, value: &Value) -> bool {
        match (self, value) {
            (Self::Decimal(rule), Value::Decimal(number)) => (rule.accepts)(number),
            (Self::Text(rule), Value::Text(text)) => (rule.accepts)(text),
            (Self::Thresholds, Value::Table(values)) => are_some_of(values, &["possible_drift", "drift"], POSITIVE),
            (Self::Quality, Value::Table(values)) => are_some_of(values, &["missing", "other", "out_of_range"], SHARE),
            _ => false,
        }
    }
}

/// Whether they have these names, not one of them without a number that the rule accepts.
fn are_some_of(values: &BTreeMap<String, Value>, names: &[&str], rule: Rule<f64>) -> bool {
    let is_one =
        |(name, value): (&String, &Value)| names.contains(&name.as_str()) && matches!(value, Value::Decimal(number) if (rule.accepts)(number));
    !values.is_empty() && values.iter().all(is_one)
}
