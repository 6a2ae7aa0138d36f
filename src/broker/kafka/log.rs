//! librdkafka's log lines.

use rdkafka::config::RDKafkaLogLevel;
use tracing::{debug, error, info, warn};

/// Passes a line on. That a consumer's property is none of a producer's is no news: the user sets properties once for all clients.
pub(super) fn pass_on(level: RDKafkaLogLevel, facility: &str, line: &str) {
    let level = if facility == "CONFWARN" { RDKafkaLogLevel::Debug } else { level };
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
            error!(target: "librdkafka", facility, "{line}");
        }
        RDKafkaLogLevel::Warning => warn!(target: "librdkafka", facility, "{line}"),
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => info!(target: "librdkafka", facility, "{line}"),
        RDKafkaLogLevel::Debug => debug!(target: "librdkafka", facility, "{line}"),
    }
}
