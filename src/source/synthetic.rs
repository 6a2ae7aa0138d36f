//! A synthetic stream: five features, a target and a timestamp, of which two features may start to drift.

use std::fmt::Write as _;

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand_distr::{Distribution, Normal};

/// The features that drift.
pub const DRIFTING: [&str; 2] = ["feature1", "feature3"];

/// How many features a row has.
pub const FEATURES: usize = 5;

/// What to generate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// The same seed gives the same rows.
    pub seed: u64,
    /// By how many standard deviations [`DRIFTING`] move.
    pub shift: f64,
    /// Rows before they do.
    pub drift_after: u64,
}

/// An endless stream of rows.
pub struct Rows {
    settings: Settings,
    random: StdRng,
    normal: Normal<f64>,
    row: u64,
}

impl Rows {
    /// The stream of these settings.
    #[must_use]
    pub fn new(settings: Settings) -> Option<Self> {
        Some(Self {
            settings,
            random: StdRng::seed_from_u64(settings.seed),
            normal: Normal::new(0.0, 1.0).ok()?,
            row: 0,
        })
    }

    /// The next row's features.
    pub fn next_values(&mut self) -> [f64; FEATURES] {
        let mut values = [0.0; FEATURES];
        for value in &mut values {
            *value = self.normal.sample(&mut self.random);
        }
        if self.row >= self.settings.drift_after {
            values[0] += self.settings.shift;
            values[2] += self.settings.shift;
        }
        self.row += 1;
        values
    }

    /// The next row as JSON, replacing what `out` held.
    pub fn next_json(&mut self, timestamp_ms: i64, out: &mut String) {
        let [a, b, c, d, e] = self.next_values();
        let target = u8::from(a + b > 0.0);
        out.clear();
        // Writing to a string cannot fail.
        write!(
            out,
            "{{\"feature1\": {a:.6}, \"feature2\": {b:.6}, \"feature3\": {c:.6}, \"feature4\": {d:.6}, \"feature5\": {e:.6}, \"target\": {target}, \"timestamp\": {timestamp_ms}}}"
        )
        .unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_rows_and_two_features_drift() {
        let settings = Settings {
            seed: 42,
            shift: 3.0,
            drift_after: 1000,
        };
        let (mut one, mut two) = (Rows::new(settings).unwrap(), Rows::new(settings).unwrap());
        let (mut text, mut again) = (String::new(), String::new());
        let mut means = [[0.0; FEATURES]; 2];
        for row in 0..2000 {
            one.next_json(1, &mut text);
            two.next_json(1, &mut again);
            assert_eq!(text, again);
            let value: serde_json::Value = serde_json::from_str(&text).unwrap();
            for (index, mean) in means[row / 1000].iter_mut().enumerate() {
                *mean += value[format!("feature{}", index + 1)].as_f64().unwrap() / 1000.0;
            }
        }
        let moved: Vec<usize> = (0..FEATURES).filter(|index| means[1][*index] - means[0][*index] > 1.0).collect();
        assert_eq!(moved, [0, 2]);
        assert!((120..190).contains(&text.len()), "{} bytes", text.len());
    }
}
