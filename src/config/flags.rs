//! The command line's share of the configuration: a flag for every key that has one.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Arg, ArgMatches, Command};

use super::keys::{KEYS, Key, Kind};

/// What the command line says of the configuration. Everything stays text here: the table of keys knows the types, and a numeric secret stays what
/// it is. The environment is not read by clap but by [`super::load`], so that tests need none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigFlags {
    /// `--config`.
    pub config: Option<PathBuf>,
    /// Texts by path of the key.
    pub values: BTreeMap<&'static str, String>,
}

impl ConfigFlags {
    /// These flags with one more, as if it had been given: for tests and commands with flags of their own.
    #[must_use]
    pub fn with(mut self, path: &str, text: &str) -> Self {
        if let Some(key) = super::keys::find(path) {
            self.values.insert(key.path, text.to_owned());
        }
        self
    }
}

impl clap::Args for ConfigFlags {
    fn augment_args(command: Command) -> Command {
        let config = Arg::new("config")
            .long("config")
            .value_name("FILE")
            .value_parser(clap::value_parser!(PathBuf))
            .help_heading("Configuration")
            .help("Configuration file [default: ./leeway.toml if it is there]");
        command.arg(config).args(KEYS.iter().filter_map(argument))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for ConfigFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let value = |key: &Key| matches.get_one::<String>(key.flag?).cloned().map(|text| (key.path, text));
        Ok(Self {
            config: matches.get_one("config").cloned(),
            values: KEYS.iter().filter_map(value).collect(),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        let Self { config, values } = Self::from_arg_matches(matches)?;
        self.config = config.or(self.config.take());
        self.values.extend(values);
        Ok(())
    }
}

fn argument(key: &'static Key) -> Option<Arg> {
    let flag = key.flag?;
    let heading = match key.path.split('.').next() {
        Some("monitor") => "The first monitor",
        Some("http") => "HTTP",
        Some("dashboard") => "Dashboard",
        _ => "Configuration",
    };
    let arg = Arg::new(flag)
        .long(flag)
        .value_name(value_name(key))
        .allow_negative_numbers(true)
        .help_heading(heading)
        .help(help(key));
    Some(arg)
}

fn value_name(key: &Key) -> &'static str {
    match key.kind {
        Kind::Integer { .. } | Kind::Extent { .. } | Kind::Decimal(_) => "NUMBER",
        Kind::Boolean | Kind::Choice(_) => "WORD",
        Kind::List(_) => "LIST",
        Kind::Text(_) => "TEXT",
        Kind::ByFeature(_) => "TABLE",
    }
}

/// What it is for; below, key, variable and default.
fn help(key: &Key) -> String {
    let variable = key.variable.map(|variable| format!(" [env: {variable}]")).unwrap_or_default();
    let default = match (key.default, key.unset) {
        (Some(default), _) => format!(" [default: {default}]"),
        (None, "") => String::new(),
        (None, unset) => format!(" [default: {unset}]"),
    };
    format!("{}\n[key: {}]{variable}{default}", key.doc, key.path)
}
