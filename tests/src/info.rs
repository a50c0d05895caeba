//! Figures that a server shows about itself: the fields of INFO and of CLIENT LIST.

use std::collections::BTreeMap;

use crate::client::Client;

/// The fields of INFO, by name.
pub fn fields(client: &mut Client) -> BTreeMap<String, String> {
    let text = client.line("INFO everything").text();
    let fields = text.lines().filter_map(|line| line.split_once(':'));
    fields
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect()
}

/// A field of INFO.
///
/// # Panics
/// When INFO does not have it.
pub fn field(client: &mut Client, name: &str) -> String {
    let mut fields = fields(client);
    fields
        .remove(name)
        .unwrap_or_else(|| panic!("INFO has no {name}: {fields:?}"))
}

/// A field of INFO that is a whole number.
///
/// # Panics
/// When INFO does not have it, or it is no whole number.
pub fn figure(client: &mut Client, name: &str) -> u64 {
    let text = field(client, name);
    text.parse()
        .unwrap_or_else(|error| panic!("{name}:{text}: {error}"))
}

/// A figure of `INFO shards`, for each shard.
///
/// # Panics
/// When a shard does not have it.
pub fn of_shards(client: &mut Client, name: &str) -> Vec<u64> {
    let text = client.line("INFO shards").text();
    let lines = text.lines().filter(|line| line.starts_with("shard"));
    let figure = |line: &str| {
        let mut figures = line.split([',', ':']).filter_map(|part| part.split_once('='));
        let (_, value) = figures.find(|(known, _)| *known == name)?;
        value.trim().parse().ok()
    };
    lines
        .map(|line| figure(line).unwrap_or_else(|| panic!("no {name} in {line}")))
        .collect()
}

/// A word of a line of CLIENT LIST or CLIENT INFO, without its name.
#[must_use]
pub fn word<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let mut words = line.split_ascii_whitespace();
    words.find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
}
