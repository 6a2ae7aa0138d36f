//! Reads the configuration file against the table of keys: what it says, from which line, and everything that is wrong with it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{self, Key, Kind, PROPERTIES, Table};
use super::value::{MASK, Secret, Setting, Source, Value, quoted};

/// Settings by path of the key.
pub(super) type Settings = BTreeMap<&'static str, Setting>;

/// A librdkafka property.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Property {
    pub(super) value: Secret,
    /// It came from a file of its own or its name says so.
    pub(super) is_secret: bool,
    pub(super) source: Source,
}

/// What a file says.
#[derive(Debug, Default)]
pub(super) struct FileSettings {
    pub(super) common: Settings,
    /// One per `[[monitor]]`.
    pub(super) monitors: Vec<Settings>,
    /// One per `[[alert.channel]]`.
    pub(super) channels: Vec<Settings>,
    pub(super) properties: BTreeMap<String, Property>,
}

type Entry<'a, 'i> = (&'a Spanned<std::borrow::Cow<'i, str>>, &'a Spanned<DeValue<'i>>);

/// Reads a file's text.
///
/// # Errors
/// All faults, in the order of the file.
pub(super) fn read(path: &Path, text: &str, faults: &mut Vec<String>) -> FileSettings {
    let mut reader = Reader {
        path,
        text,
        settings: FileSettings::default(),
        faults: Vec::new(),
    };
    let (document, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        for entry in document.get_ref() {
            reader.entry("", entry);
        }
    }
    // The first one only: the rest are mostly its consequences.
    if let Some(error) = errors.iter().min_by_key(|error| error.span().map_or(0, |span| span.start)) {
        // The message alone: the parser's own rendering quotes the line, which may hold a secret.
        let span = error.span().unwrap_or(0..0);
        reader
            .faults
            .push((span.start, format!("{}: not TOML: {}", reader.source(&span), error.message())));
    }
    reader.faults.sort();
    faults.extend(reader.faults.into_iter().map(|(_, fault)| fault));
    reader.settings
}

struct Reader<'t> {
    path: &'t Path,
    text: &'t str,
    settings: FileSettings,
    /// With the place in the file, for sorting.
    faults: Vec<(usize, String)>,
}

impl Reader<'_> {
    fn source(&self, span: &Range<usize>) -> Source {
        let before = self.text.get(..span.start).unwrap_or_default();
        Source::File {
            path: self.path.to_owned(),
            line: before.matches('\n').count() + 1,
        }
    }

    fn fault(&mut self, span: &Range<usize>, text: &str) {
        let place = self.source(span);
        self.faults.push((span.start, format!("{place}: {text}")));
    }

    /// One fault of a value: key, value, source, and what is allowed.
    fn refuse(&mut self, path: &str, value: &Spanned<DeValue<'_>>, secret: bool, allowed: &str) {
        let span = value.span();
        let shown = if secret { quoted(MASK) } else { self.shown(value) };
        let source = self.source(&span);
        self.faults.push((span.start, format!("{path} = {shown} ({source}): {allowed}")));
    }

    /// A value as it stands in the file, if it is short.
    fn shown(&self, value: &Spanned<DeValue<'_>>) -> String {
        let text = self.text.get(value.span()).unwrap_or_default();
        if text.is_empty() || text.contains('\n') || text.chars().count() > 80 {
            format!("({})", value.get_ref().type_str())
        } else {
            text.to_owned()
        }
    }

    /// One entry of the table `prefix` (with its dot). Monitors and channels are read by [`Self::tables`].
    fn entry(&mut self, prefix: &str, (name, value): Entry<'_, '_>) {
        let path = format!("{prefix}{}", name.get_ref());
        if path == "monitor" {
            self.tables(&path, value, |settings| &mut settings.monitors);
        } else if path == "alert.channel" {
            self.tables(&path, value, |settings| &mut settings.channels);
        } else if let Some(key) = keys::find(&path) {
            let setting = self.setting(key, value);
            let settings = match key.table() {
                Table::Common => Some(&mut self.settings.common),
                Table::Monitor => self.settings.monitors.last_mut(),
                Table::Channel => self.settings.channels.last_mut(),
            };
            if let Some(settings) = settings {
                settings.insert(key.path, setting);
            }
        } else if path == PROPERTIES {
            match value.get_ref().as_table() {
                Some(table) => table.iter().for_each(|entry| self.property("", entry)),
                None => self.refuse(&path, value, false, "must be a table of librdkafka properties"),
            }
        } else if keys::is_section(&path) {
            match value.get_ref().as_table() {
                Some(table) => table.iter().for_each(|entry| self.entry(&format!("{path}."), entry)),
                None => self.refuse(&path, value, false, "must be a table"),
            }
        } else {
            let hint = keys::suggestion(&path)
                .map(|known| format!("; did you mean `{known}`?"))
                .unwrap_or_default();
            self.fault(&name.span(), &format!("unknown key `{path}`{hint}"));
        }
    }

    /// An array of tables, each with settings of its own.
    fn tables(&mut self, path: &str, value: &Spanned<DeValue<'_>>, of: fn(&mut FileSettings) -> &mut Vec<Settings>) {
        let allowed = format!("must be an array of tables: write `[[{path}]]`");
        let Some(items) = value.get_ref().as_array() else {
            self.refuse(path, value, false, &allowed);
            return;
        };
        for item in items {
            of(&mut self.settings).push(Settings::new());
            match item.get_ref().as_table() {
                Some(table) => table.iter().for_each(|entry| self.entry(&format!("{path}."), entry)),
                None => self.refuse(path, item, false, &allowed),
            }
        }
    }

    fn setting(&mut self, key: &Key, value: &Spanned<DeValue<'_>>) -> Setting {
        let source = self.source(&value.span());
        let checked = self.typed(key, value).and_then(|value| key.check(value));
        let value = checked.map_err(|allowed| self.refuse(key.path, value, key.secret, &allowed)).ok();
        Setting { value, source }
    }

    fn typed(&self, key: &Key, value: &Spanned<DeValue<'_>>) -> Result<Value, String> {
        let wrong = || key.allowed();
        match (key.kind, value.get_ref()) {
            (Kind::Text(_), DeValue::Table(table)) if key.secret => secret_file(table).unwrap_or_else(|| Err(wrong())).map(Value::Secret),
            (Kind::Text(_), DeValue::Table(table)) if key.path == "monitor.reference" => first(table)
                .or_else(|| rolling(table))
                .map(Value::Text)
                .ok_or_else(|| format!("{}; or {{ first = N }} or {{ rolling = \"7d\", lag = \"1d\", every = \"1d\" }}", wrong())),
            (Kind::Text(_) | Kind::Choice(_), DeValue::String(text)) if key.secret => Ok(Value::Secret(Secret::new(text.to_string()))),
            (Kind::Text(_) | Kind::Choice(_), DeValue::String(text)) => Ok(Value::Text(text.to_string())),
            (Kind::Extent { .. }, DeValue::String(text)) => Ok(Value::Text(text.to_string())),
            (Kind::Integer { .. } | Kind::Extent { .. }, value @ DeValue::Integer(_)) => integer(value).map(Value::Integer).ok_or_else(wrong),
            (Kind::Decimal(_), value @ (DeValue::Integer(_) | DeValue::Float(_))) => decimal(value).map(Value::Decimal).ok_or_else(wrong),
            (Kind::Boolean, DeValue::Boolean(flag)) => Ok(Value::Boolean(*flag)),
            (Kind::List(_), DeValue::Array(items)) => {
                let texts = items.iter().map(|item| item.get_ref().as_str().map(str::to_owned));
                texts.collect::<Option<_>>().map(Value::List).ok_or_else(wrong)
            }
            (Kind::ByFeature(_), DeValue::Table(table)) => by_name(table).ok_or_else(wrong),
            _ => Err(wrong()),
        }
    }

    /// One property. `sasl.password` without quotes is a table within a table in TOML; both ways of writing it are meant the same.
    fn property(&mut self, prefix: &str, (name, value): Entry<'_, '_>) {
        let name = format!("{prefix}{}", name.get_ref());
        let path = format!("{PROPERTIES}.{name}");
        let mut is_secret = is_secret_property(&name);
        let text = match value.get_ref() {
            DeValue::Table(table) if self.text.get(value.span()).is_none_or(|text| !text.starts_with('{')) => {
                table.iter().for_each(|entry| self.property(&format!("{name}."), entry));
                return;
            }
            DeValue::Table(table) => {
                is_secret = true;
                secret_file(table).unwrap_or_else(|| Err("must be a string, a number, true or false, or { file = \"path\" }".to_owned()))
            }
            DeValue::String(text) => Ok(Secret::new(text.to_string())),
            DeValue::Boolean(flag) => Ok(Secret::new(flag.to_string())),
            value @ DeValue::Integer(_) => signed(value)
                .map(|number| Secret::new(number.to_string()))
                .ok_or_else(|| "is too large".to_owned()),
            DeValue::Float(number) => Ok(Secret::new(number.as_str().to_owned())),
            DeValue::Array(_) | DeValue::Datetime(_) => Err("must be a string, a number, true or false, or { file = \"path\" }".to_owned()),
        };
        match (crate::broker::kafka::refused_property(&name), text) {
            (Some(reason), _) => self.refuse(&path, value, is_secret, &format!("cannot be set: {reason}")),
            (None, Err(allowed)) => self.refuse(&path, value, false, &allowed),
            (None, Ok(text)) => {
                let source = self.source(&value.span());
                self.settings.properties.insert(
                    name,
                    Property {
                        value: text,
                        is_secret,
                        source,
                    },
                );
            }
        }
    }
}

/// Whether a property's value must not be printed.
fn is_secret_property(name: &str) -> bool {
    let words = ["password", "passphrase", "secret", "key.pem", "credential", "oauthbearer.config"];
    words.iter().any(|word| name.contains(word)) || name.ends_with("token")
}

/// `{ file = "path" }`: the secret in that file, without its last line break. `None` if the table is something else.
fn secret_file(table: &DeTable<'_>) -> Option<Result<Secret, String>> {
    let path = table.get("file").filter(|_| table.len() == 1)?.get_ref().as_str()?;
    let text = std::fs::read_to_string(path).map_err(|error| format!("the file {path:?} cannot be read: {error}"));
    Some(text.map(|text| {
        Secret::new(
            text.strip_suffix('\n')
                .map_or(text.as_str(), |text| text.strip_suffix('\r').unwrap_or(text))
                .to_owned(),
        )
    }))
}

/// `{ first = 10000 }` in the spelling of the command line.
fn first(table: &DeTable<'_>) -> Option<String> {
    let count = integer(table.get("first").filter(|_| table.len() == 1)?.get_ref())?;
    Some(format!("first:{count}"))
}

/// `{ rolling = "7d", lag = "1d" }` in the spelling of the command line.
fn rolling(table: &DeTable<'_>) -> Option<String> {
    let part = |name: &str| Some(format!("{name}:{}", table.get(name)?.get_ref().as_str()?));
    let parts: Vec<_> = ["rolling", "lag", "every"].into_iter().filter_map(part).collect();
    (parts.len() == table.len() && table.contains_key("rolling")).then(|| parts.join(","))
}

/// A table of numbers, texts, or tables of them.
fn by_name(table: &DeTable<'_>) -> Option<Value> {
    let entries = table.iter().map(|(name, value)| {
        let value = match value.get_ref() {
            DeValue::Table(inner) => by_name(inner)?,
            DeValue::String(text) => Value::Text(text.to_string()),
            number => Value::Decimal(decimal(number)?),
        };
        Some((name.get_ref().to_string(), value))
    });
    entries.collect::<Option<_>>().map(Value::Table)
}

fn signed(value: &DeValue<'_>) -> Option<i64> {
    let number = value.as_integer()?;
    i64::from_str_radix(number.as_str(), number.radix()).ok()
}

fn integer(value: &DeValue<'_>) -> Option<u64> {
    signed(value)?.try_into().ok()
}

fn decimal(value: &DeValue<'_>) -> Option<f64> {
    match value {
        DeValue::Float(number) => number.as_str().parse().ok(),
        value => signed(value).map(|number| number as f64),
    }
}
