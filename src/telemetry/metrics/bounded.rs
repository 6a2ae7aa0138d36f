//! Families of series with a bound: past it, label sets are summed into one.
//!
//! All families of a process share one budget. A label set that came too late stays in the rest: a series that appears and vanishes again would
//! be worse than none. Memory past the bound is 16 bytes per label set of a gauge, and nothing for a counter.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::core::Collector as _;
use prometheus::{Gauge, GaugeVec, IntCounter, IntCounterVec};
use tracing::warn;

/// Every label of the series that the rest is summed into.
pub(crate) const REST: &str = "__rest__";

/// How many more series there may be.
#[derive(Debug)]
pub(crate) struct Budget {
    max: usize,
    used: AtomicUsize,
    warned: AtomicBool,
}

impl Budget {
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self {
            max,
            used: AtomicUsize::new(0),
            warned: AtomicBool::new(false),
        })
    }

    fn take(&self) -> bool {
        let taken = self
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| (used < self.max).then_some(used + 1))
            .is_ok();
        if !taken && !self.warned.swap(true, Ordering::Relaxed) {
            warn!(
                max_series = self.max,
                "more series than `metrics.max_series`: further ones are summed into `{REST}`; raise it to see them"
            );
        }
        taken
    }

    fn give_back(&self) {
        self.used.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What the library's families have in common.
pub(crate) trait Family {
    /// One series.
    type Series: Clone;

    fn labels(&self) -> usize;
    fn series(&self, labels: &[&str]) -> Self::Series;
    fn remove(&self, labels: &[String]);
}

macro_rules! family {
    ($family:ty, $series:ty) => {
        impl Family for $family {
            type Series = $series;

            fn labels(&self) -> usize {
                self.desc().first().map_or(0, |desc| desc.variable_labels.len())
            }

            fn series(&self, labels: &[&str]) -> $series {
                self.with_label_values(labels)
            }

            fn remove(&self, labels: &[String]) {
                // It fails only if the series is not there, which is what is wanted.
                drop(self.remove_label_values(labels));
            }
        }
    };
}

family!(IntCounterVec, IntCounter);
family!(GaugeVec, Gauge);

/// One family.
pub(crate) struct Bounded<F: Family> {
    family: F,
    labels: usize,
    budget: Arc<Budget>,
    known: Mutex<Known<F::Series>>,
}

struct Known<S> {
    /// By hash of the labels: 64 bits, which is also what the family itself goes by.
    series: HashMap<u64, (S, Box<[String]>)>,
    /// What gauges in the rest were last set to.
    rest: HashMap<u64, f64>,
}

impl<F: Family> Bounded<F> {
    pub(super) fn new(family: F, budget: &Arc<Budget>) -> Self {
        let labels = family.labels();
        Self {
            family,
            labels,
            budget: budget.clone(),
            known: Mutex::new(Known {
                series: HashMap::new(),
                rest: HashMap::new(),
            }),
        }
    }

    /// The series of these labels and `true`, or the rest's and `false`.
    fn series(&self, known: &mut Known<F::Series>, labels: &[&str]) -> (F::Series, bool) {
        let hash = hash(labels);
        if let Some((series, _)) = known.series.get(&hash) {
            return (series.clone(), true);
        }
        if known.rest.contains_key(&hash) || !self.budget.take() {
            return (self.family.series(&vec![REST; self.labels]), false);
        }
        let series = self.family.series(labels);
        known
            .series
            .insert(hash, (series.clone(), labels.iter().map(|&label| label.to_owned()).collect()));
        (series, true)
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known<F::Series>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes the series whose labels are so; their place is free again.
    pub(crate) fn remove_where(&self, are_gone: impl Fn(&[String]) -> bool) {
        self.known().series.retain(|_, (_, labels)| {
            let gone = are_gone(labels);
            if gone {
                self.family.remove(labels);
                self.budget.give_back();
            }
            !gone
        });
    }
}

impl Bounded<IntCounterVec> {
    /// The counter of these labels: keep it where it counts often.
    pub(crate) fn counter(&self, labels: &[&str]) -> IntCounter {
        self.series(&mut self.known(), labels).0
    }
}

impl Bounded<GaugeVec> {
    /// Sets the gauge of these labels; in the rest, its share of the sum.
    pub(crate) fn set(&self, labels: &[&str], value: f64) {
        let known = &mut *self.known();
        let (gauge, is_own) = self.series(known, labels);
        if is_own {
            gauge.set(value);
        } else {
            let before = known.rest.insert(hash(labels), value).unwrap_or_default();
            gauge.add(value - before);
        }
    }
}

fn hash(labels: &[&str]) -> u64 {
    let mut hasher = DefaultHasher::new();
    labels.hash(&mut hasher);
    hasher.finish()
}
