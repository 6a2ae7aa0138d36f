//! A dashboard on the embedded broker, and events for it that are as a worker would write them, but of counts drawn at random.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use leeway::broker::memory::MemoryBroker;
use leeway::broker::{Broker as _, CommittedOffset, NewTopic, OutRecord, PlainProducer as _, TopicPartition};
use leeway::consumers::dashboard::{Dashboard, Limits, Settings};
use leeway::http::Listen;
use leeway::reference_topic;
use leeway_topology::binning::Binning;
use leeway_topology::drift::{Status, Thresholds};
use leeway_topology::event::{DriftEvent, QUALITY_KIND, QualityEvent, SCHEMA_VERSION};
use leeway_topology::ids::{Offset, Partition, Timestamp};
use leeway_topology::processor::{Monitor, Scopes};
use leeway_topology::psi;
use leeway_topology::quality::{Example, QualityStatus, Violation};
use leeway_topology::reference::{Cell, ColumnType, FeatureReference, Reference, ReferenceBuilder};
use leeway_topology::significance::{TwoSampleTest, psi_null_mean};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rand_distr::{Distribution as _, Normal};

use super::place::{EVERY, Kind, Place, WINDOW};

const APPLICATION: &str = "app";

/// Names that people know, for pictures; further features have numbers.
const NAMES: [&str; 14] = [
    "income",
    "age",
    "balance",
    "country",
    "plan",
    "device",
    "tenure_days",
    "sessions_7d",
    "purchases_30d",
    "basket_value",
    "latency_ms",
    "discount",
    "support_tickets",
    "channel",
];
const CATEGORIES: [(&str, &[&str]); 4] = [
    ("country", &["DE", "FR", "IT", "ES", "NL", "PL", "SE", "AT"]),
    ("plan", &["basic", "pro", "team"]),
    ("device", &["ios", "android", "desktop", "tablet"]),
    ("channel", &["search", "direct", "mail", "social"]),
];
const MONITORS: [&str; 3] = ["churn", "pricing", "fraud"];

/// What to serve.
pub(super) struct Shape {
    pub(super) features: usize,
    pub(super) partitions: i32,
    pub(super) checks: u64,
    pub(super) monitors: usize,
    /// Something happens in it, as in a picture.
    pub(super) is_scene: bool,
    /// Countries, each watched for itself; 0: no segments.
    pub(super) segments: usize,
    /// The whole topic is watched beside its partitions.
    pub(super) has_global: bool,
    pub(super) window: Kind,
}

/// A feature that drifts in one check: everywhere, or in one segment, or in the whole topic only.
#[derive(Clone, Copy, Debug)]
pub(super) struct Drift<'a> {
    pub(super) feature: &'a str,
    pub(super) segment: Option<&'a str>,
    pub(super) global_only: bool,
}

impl Drift<'_> {
    fn is_of(&self, feature: &str, place: &Place) -> bool {
        self.feature == feature
            && self.segment.is_none_or(|segment| place.segment.as_deref() == Some(segment))
            && !(self.global_only && place.partition.is_some())
    }
}

pub(super) struct World {
    broker: MemoryBroker,
    settings: Settings,
    references: Vec<Arc<Reference>>,
    dashboard: Option<Dashboard>,
    random: StdRng,
    normal: Normal<f64>,
    partitions: i32,
    places: Vec<Place>,
    window: Kind,
    is_scene: bool,
    /// Made so far, of each partition.
    check: u64,
    checks_at_start: u64,
    end_ms: i64,
}

impl World {
    /// A broker with topics, references and as many checks as asked, the last of them now.
    pub(super) fn new(shape: &Shape) -> Self {
        let broker = MemoryBroker::new().with_retention(2_000_000);
        let topic = |name: &str, partitions: i32| {
            let topic = NewTopic {
                name: name.into(),
                partitions: partitions as u32,
                replication_factor: None,
                config: BTreeMap::new(),
            };
            broker.create_topic(&topic, Duration::ZERO).expect("a topic");
        };
        topic("drift-events", 4);
        let mut monitors = Vec::new();
        let mut references = Vec::new();
        for (at, name) in MONITORS.iter().take(shape.monitors).enumerate() {
            let input = format!("{name}-data");
            topic(&input, shape.partitions);
            topic(&format!("{input}-dlq"), 1);
            let mut monitor = Monitor::new(name, &input);
            monitor.window = shape.window.window();
            monitor.scopes = Scopes {
                partition: true,
                global: shape.has_global,
            };
            if shape.segments > 0 {
                monitor.segment_by = vec!["country".parse().expect("a field")];
            }
            monitors.push(Arc::new(monitor));
            // Others are smaller, so that no two look the same.
            let reference = reference(name, if at == 0 { shape.features } else { shape.features.div_ceil(at + 1) });
            reference_topic::publish(&broker, APPLICATION, &reference).expect("published");
            references.push(Arc::new(reference));
        }
        let countries = CATEGORIES[0].1.iter().take(shape.segments);
        let segments: Vec<String> = countries.map(|country| format!("country={country}")).collect();
        let mut world = Self {
            settings: Settings {
                application_id: APPLICATION.to_owned(),
                monitors,
                listen: Listen {
                    section: "dashboard",
                    host: "127.0.0.1".to_owned(),
                    port: 0,
                    port_is_set: true,
                },
                limits: Limits::default(),
            },
            broker,
            references,
            dashboard: None,
            random: StdRng::seed_from_u64(42),
            normal: Normal::new(0.0, 1.0).expect("a distribution"),
            partitions: shape.partitions,
            places: Place::all(shape.partitions, &segments, shape.has_global),
            window: shape.window,
            is_scene: shape.is_scene,
            check: 0,
            checks_at_start: shape.checks,
            end_ms: shape.window.end(now_ms()),
        };
        if shape.is_scene {
            world.input();
        }
        for _ in 0..shape.checks {
            world.push(None);
        }
        world
    }

    /// Records, a group that has read most of them, and two dead letters.
    fn input(&self) {
        let mut producer = self.broker.producer().expect("a producer");
        let mut send = |topic: &str, partition: i32| {
            let record = OutRecord {
                topic: topic.into(),
                partition: Partition(partition),
                key: None,
                value: Some(b"{}".to_vec()),
                headers: Vec::new(),
                timestamp: None,
            };
            producer.send(record).expect("sent");
        };
        for monitor in &self.settings.monitors {
            for partition in 0..self.partitions {
                for _ in 0..100 {
                    send(&monitor.topic, partition);
                }
                let committed = CommittedOffset {
                    offset: Offset(100 - i64::from(partition % 4) * 3),
                    metadata: String::new(),
                };
                let at = TopicPartition::new(monitor.topic.clone(), Partition(partition));
                self.broker.set_offset(APPLICATION, &at, committed);
            }
            send(&monitor.dead_letter_topic, 0);
            send(&monitor.dead_letter_topic, 0);
        }
    }

    /// Serves; at the same address as before, if it served before.
    pub(super) async fn start(&mut self) -> String {
        let dashboard = Dashboard::start(self.broker.clone(), self.settings.clone()).await.expect("a dashboard");
        let address = dashboard.address();
        self.settings.listen.port = address.port();
        self.dashboard = Some(dashboard);
        format!("http://{address}/")
    }

    pub(super) async fn stop(&mut self) {
        if let Some(dashboard) = self.dashboard.take() {
            dashboard.shutdown().await;
        }
    }

    /// One more check of everything, in which one feature may drift.
    pub(super) fn push(&mut self, drift: Option<Drift<'_>>) {
        self.check += 1;
        let (references, places) = (self.references.clone(), self.places.clone());
        let mut producer = self.broker.producer().expect("a producer");
        for reference in references {
            for place in &places {
                for (key, value) in self.events(&reference, place, drift) {
                    let to = Partition(key.bytes().map(i32::from).sum::<i32>() % 4);
                    let record = OutRecord {
                        topic: "drift-events".into(),
                        partition: to,
                        key: Some(key.into_bytes()),
                        value: Some(value),
                        headers: Vec::new(),
                        timestamp: Some(Timestamp(self.time().max(self.end_ms - 3_600_000))),
                    };
                    producer.send(record).expect("sent");
                }
            }
        }
    }

    /// The event time of the present check. The checks that there are at the start end then.
    fn time(&self) -> i64 {
        if self.check <= self.checks_at_start {
            self.end_ms - (self.checks_at_start - self.check) as i64 * self.window.every_ms()
        } else {
            let later = (self.check - self.checks_at_start) as i64;
            match self.window {
                Kind::Count => now_ms().max(self.end_ms + later),
                Kind::Time => self.end_ms + later * self.window.every_ms(),
            }
        }
    }

    fn events(&mut self, reference: &Reference, place: &Place, drift: Option<Drift<'_>>) -> Vec<(String, Vec<u8>)> {
        let (features, count) = (reference.features(), reference.features().len());
        let k = self.check * EVERY;
        let blank = self.window.event(reference, place, self.partitions, k, self.time());
        let mut found = Vec::new();
        let (mut psis, mut drifted, mut any) = (0.0, 0, false);
        for feature in features {
            let shift = if drift.is_some_and(|drift| drift.is_of(feature.name(), place)) {
                1.2
            } else if self.is_scene {
                scene(
                    reference.monitor(),
                    feature.name(),
                    place.partition.unwrap_or_default(),
                    self.check as f64 / self.checks_at_start.max(1) as f64,
                )
            } else {
                0.0
            };
            let counts = self.draw(feature, shift);
            let expected = feature.counts();
            let psi = psi::psi(expected, &counts, 1e-4);
            let test = TwoSampleTest::new(expected, &counts);
            let window_count: u64 = counts.iter().sum();
            let p_value = test.p_value();
            let significant = p_value < 1e-3 / count as f64;
            let status = if significant {
                Thresholds::default().status(psi)
            } else {
                Status::NoDrift
            };
            psis += psi;
            drifted += u64::from(status == Status::Drift);
            any |= significant;
            let contributions = psi::contributions(expected, &counts, 1e-4);
            let top = (0..counts.len())
                .max_by(|a, b| contributions[*a].total_cmp(&contributions[*b]))
                .unwrap_or(0);
            let event = DriftEvent {
                feature: feature.name().clone(),
                psi,
                p_value: Some(p_value),
                psi_null_mean: Some(psi_null_mean(test.df(), expected.iter().sum(), window_count)),
                significant: Some(significant),
                status,
                window_count,
                missing_count: counts.last().copied(),
                below_range_count: feature.range().map(|_| 0),
                above_range_count: feature.range().map(|_| (shift * 20.0) as u64),
                top_bin: Some(feature.label(top)),
                top_bin_contribution: Some(contributions[top]),
                counts: Some(counts),
                ..blank.clone()
            };
            let key = feature.name().to_string();
            if self.is_scene && reference.monitor() == MONITORS[0] && &**feature.name() == "country" {
                let quality = quality(&event, self.check as f64 / self.checks_at_start.max(1) as f64);
                found.push((key.clone(), event.to_json()));
                found.push((key, quality.to_json()));
            } else {
                found.push((key, event.to_json()));
            }
        }
        let mean = psis / count as f64;
        let summary = DriftEvent {
            feature: "*".into(),
            psi: mean,
            status: if any { Thresholds::default().status(mean) } else { Status::NoDrift },
            feature_count: Some(count as u64),
            drifted_features: Some(drifted),
            ..blank
        };
        found.push(("*".to_owned(), summary.to_json()));
        found
    }

    /// Counts of a window whose bins are those of the reference, tilted to the upper ones.
    fn draw(&mut self, feature: &FeatureReference, shift: f64) -> Vec<u64> {
        let ordinary = feature.bin_count() - 1;
        let weights: Vec<f64> = feature
            .counts()
            .iter()
            .enumerate()
            .map(|(bin, count)| {
                let place = if bin < ordinary { bin as f64 / ordinary as f64 - 0.5 } else { 0.0 };
                *count as f64 * (2.0 * shift * place).exp()
            })
            .collect();
        let whole: f64 = weights.iter().sum();
        weights
            .iter()
            .map(|weight| {
                let mean = weight / whole * WINDOW as f64;
                (mean + mean.sqrt() * self.normal.sample(&mut self.random)).round().max(0.0) as u64
            })
            .collect()
    }
}

/// What happens in the picture: how far a feature is moved, by partition and time (0 to 1).
fn scene(monitor: &str, feature: &str, partition: i32, time: f64) -> f64 {
    match (monitor, feature) {
        ("pricing", "balance") if time > 0.7 => 0.65,
        ("pricing" | "fraud", _) => 0.0,
        (_, feature) => scene_of_first(feature, partition, time),
    }
}

fn scene_of_first(feature: &str, partition: i32, time: f64) -> f64 {
    match feature {
        "income" if time > 0.62 => 1.15,
        "latency_ms" => (time - 0.35).max(0.0) * 1.1,
        "device" if partition == 3 && (0.3..0.55).contains(&time) => 1.3,
        "basket_value" if time > 0.9 => 0.62,
        "sessions_7d" if (0.12..0.2).contains(&time) => 0.8,
        _ => 0.0,
    }
}

/// Unknown countries for a while.
fn quality(event: &DriftEvent, time: f64) -> QualityEvent {
    let is_bad = time > 0.8 && event.partition == Some(Partition(1));
    QualityEvent {
        schema_version: SCHEMA_VERSION,
        event_id: event.event_id.clone(),
        kind: QUALITY_KIND.into(),
        monitor: event.monitor.clone(),
        scope: event.scope,
        partition: event.partition,
        segment: None,
        feature: event.feature.clone(),
        status: if is_bad { QualityStatus::Violated } else { QualityStatus::Ok },
        previous_status: None,
        record_count: event.record_count,
        window_count: event.window_count,
        missing_share: 0.004,
        missing_threshold: Some(0.05),
        other_share: Some(if is_bad { 0.061 } else { 0.002 }),
        other_threshold: Some(0.02),
        out_of_range_share: None,
        out_of_range_threshold: None,
        violations: if is_bad { vec![Violation::Other] } else { Vec::new() },
        examples: Some(vec![Example {
            value: "UK".to_owned(),
            count: 31,
        }]),
        window_start_offset: event.window_start_offset,
        window_end_offset: event.window_end_offset,
        window_start_ms: event.window_start_ms,
        window_end_ms: event.window_end_ms,
        reference_version: event.reference_version.clone(),
        closed_by: None,
    }
}

/// Numbers and categories of 4,000 rows.
fn reference(monitor: &str, features: usize) -> Reference {
    let names: Vec<String> = (0..features)
        .map(|at| NAMES.get(at).map_or_else(|| format!("feature_{:04}", at + 1), |name| (*name).to_owned()))
        .collect();
    let kinds = |name: &String| CATEGORIES.iter().find(|(known, _)| known == name).map(|(_, kinds)| *kinds);
    let columns: Vec<_> = names
        .iter()
        .map(|name| (name.clone(), kinds(name).map_or(ColumnType::Number, |_| ColumnType::Text)))
        .collect();
    let mut builder = ReferenceBuilder::new(monitor, &columns, &Binning::Auto { bins: 10 }, &[], 50).expect("a builder");
    let mut random = StdRng::seed_from_u64(7);
    let normal = Normal::<f64>::new(0.0, 1.0).expect("a distribution");
    // Many features need fewer rows to be as good.
    for _ in 0..if features > 100 { 600 } else { 4000 } {
        let row: Vec<Cell<'_>> = names
            .iter()
            .enumerate()
            .map(|(at, name)| {
                if random.random_bool(0.005) {
                    return Cell::Missing;
                }
                match kinds(name) {
                    Some(kinds) => Cell::Text(kinds[((random.random::<f64>().powi(2)) * kinds.len() as f64) as usize]),
                    None => Cell::Number(((normal.sample(&mut random) * 12.0 + 40.0 + at as f64) * 100.0).round() / 100.0),
                }
            })
            .collect();
        builder.push_row(row);
    }
    builder.finish().expect("a reference").0
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
