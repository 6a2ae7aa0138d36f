//! Makes families and registers them.

use std::sync::Arc;

use prometheus::core::Collector;
use prometheus::{Encoder as _, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};

use super::bounded::{Bounded, Budget};
use super::{Counters, Gauges};

/// One registry on its way. Several may share a budget.
pub(crate) struct Register {
    registry: Registry,
    budget: Arc<Budget>,
}

impl Register {
    pub(crate) fn new(budget: &Arc<Budget>) -> Self {
        Self {
            registry: Registry::new(),
            budget: budget.clone(),
        }
    }

    pub(crate) fn into_registry(self) -> Registry {
        self.registry
    }

    /// Tells which build this is.
    pub(crate) fn build_info(&self) -> Result<(), prometheus::Error> {
        let build_info = IntGaugeVec::new(Opts::new("leeway_build_info", "Always 1; which build this is."), &["version"])?;
        build_info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        self.add(&build_info)
    }

    pub(crate) fn add<M: Collector + Clone + 'static>(&self, metric: &M) -> Result<(), prometheus::Error> {
        self.registry.register(Box::new(metric.clone()))
    }

    pub(crate) fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<Counters, prometheus::Error> {
        let family = IntCounterVec::new(Opts::new(name, help), labels)?;
        self.add(&family)?;
        Ok(Bounded::new(family, &self.budget))
    }

    pub(crate) fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> Result<Gauges, prometheus::Error> {
        let family = GaugeVec::new(Opts::new(name, help), labels)?;
        self.add(&family)?;
        Ok(Bounded::new(family, &self.budget))
    }

    pub(crate) fn counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        let counter = IntCounter::new(name, help)?;
        self.add(&counter)?;
        Ok(counter)
    }

    pub(crate) fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        let gauge = IntGauge::new(name, help)?;
        self.add(&gauge)?;
        Ok(gauge)
    }

    /// Each of the `count` buckets is four times the one before.
    pub(crate) fn histogram(&self, name: &str, help: &str, first: f64, count: usize) -> Result<Histogram, prometheus::Error> {
        let buckets = prometheus::exponential_buckets(first, 4.0, count)?;
        let histogram = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets))?;
        self.add(&histogram)?;
        Ok(histogram)
    }
}

/// Adds what Prometheus' own client libraries tell of a process.
pub(crate) fn watch_process(registry: &Registry) -> Result<(), prometheus::Error> {
    #[cfg(target_os = "linux")]
    registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
    Ok(())
}

/// Registries that have no family in common, in Prometheus' text format.
pub(crate) fn render<'a>(registries: impl IntoIterator<Item = &'a Registry>) -> Result<String, prometheus::Error> {
    let mut text = Vec::new();
    for registry in registries {
        TextEncoder::new().encode(&registry.gather(), &mut text)?;
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}
