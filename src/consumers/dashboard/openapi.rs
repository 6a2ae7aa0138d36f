//! The description of the interface.

/// OpenAPI 3.1.
pub(super) const DOCUMENT: &str = include_str!("openapi.json");

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_path_is_described_and_every_description_is_of_a_path() {
        let document: serde_json::Value = serde_json::from_str(DOCUMENT).unwrap();
        let described: BTreeSet<&str> = document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(described, BTreeSet::from(super::super::api::PATHS));
        assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    }
}
