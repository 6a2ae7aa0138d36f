//! One request, and what its answer means for what was sent.
//!
//! | answer | meaning |
//! | --- | --- |
//! | 2xx | delivered |
//! | 408, 425, 429, 5xx, none, or a connection that breaks or hangs | again, not before `Retry-After` |
//! | anything else | refused: it would be again |
//!
//! Redirects are not followed: a POST would become a GET. URLs are secrets (Slack's are) and stand in no text.

use std::time::{Duration, SystemTime};

use ureq::tls::{RootCerts, TlsConfig, TlsProvider};

use super::super::message::shortened;
use super::super::outbox::Outcome;
use crate::config::Secret;

/// What of an answer is read and shown.
const ANSWER_CHARACTERS_MAX: usize = 300;

/// Sends requests.
#[derive(Clone)]
pub struct Client {
    agent: ureq::Agent,
}

impl Client {
    /// A client that gives up after so long. Certificates are the system's; `HTTPS_PROXY` and `NO_PROXY` count.
    #[must_use]
    pub fn new(timeout: Duration) -> Self {
        let tls = TlsConfig::builder()
            .provider(TlsProvider::NativeTls)
            .root_certs(RootCerts::PlatformVerifier)
            .build();
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(timeout))
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("leeway/", env!("CARGO_PKG_VERSION")))
            .tls_config(tls)
            .build();
        Self { agent: config.into() }
    }

    /// Posts JSON.
    #[must_use]
    pub fn post(&self, url: &Secret, headers: &[(&str, &str)], body: &[u8]) -> Outcome {
        let mut request = self.agent.post(url.expose()).header("Content-Type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        match request.send(body) {
            Ok(mut response) => {
                let status = response.status().as_u16();
                let retry_after = response
                    .headers()
                    .get("retry-after")
                    .and_then(|value| retry_after(value.to_str().ok()?, SystemTime::now()));
                let limit = u64::try_from(4 * ANSWER_CHARACTERS_MAX).unwrap_or(u64::MAX);
                // The status says what counts; a text that cannot be read changes nothing.
                let answer = response
                    .body_mut()
                    .with_config()
                    .limit(limit)
                    .lossy_utf8(true)
                    .read_to_string()
                    .unwrap_or_default();
                judge(status, retry_after, &answer)
            }
            Err(ureq::Error::BadUri(_) | ureq::Error::Http(_)) => Outcome::Refused {
                reason: "the URL or a header is not valid; check the channel's settings".to_owned(),
            },
            Err(error) => Outcome::Retry {
                after: None,
                reason: error.to_string().replace(url.expose(), "(url)"),
            },
        }
    }
}

/// What an answer means.
fn judge(status: u16, retry_after: Option<Duration>, answer: &str) -> Outcome {
    let said = match shortened(answer.trim(), ANSWER_CHARACTERS_MAX) {
        empty if empty.is_empty() => String::new(),
        text => format!(": {text:?}"),
    };
    match status {
        200..=299 => Outcome::Delivered,
        408 | 425 | 429 | 500..=599 => Outcome::Retry {
            after: retry_after,
            reason: format!("status {status}{said}"),
        },
        300..=399 => Outcome::Refused {
            reason: format!("status {status}: redirects are not followed; give the address that it leads to"),
        },
        401 | 403 | 404 | 410 => Outcome::Refused {
            reason: format!("status {status}{said}; check the channel's url: it may have been revoked"),
        },
        _ => Outcome::Refused {
            reason: format!("status {status}{said}"),
        },
    }
}

/// `Retry-After`: seconds, or a date.
fn retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    let text = text.trim();
    match text.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => Some(httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = UNIX_EPOCH + Duration::from_secs(784_111_777);
        assert_eq!(retry_after("120", now), Some(Duration::from_secs(120)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:50:07 GMT", now), Some(Duration::from_secs(30)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:00 GMT", now), Some(Duration::ZERO), "it is over");
        assert_eq!(retry_after("soon", now), None);
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        let is_retried = |status| matches!(judge(status, None, ""), Outcome::Retry { .. });
        assert_eq!(judge(204, None, ""), Outcome::Delivered);
        assert!([408, 425, 429, 500, 502, 503, 504].into_iter().all(is_retried));
        for status in [301, 400, 401, 403, 404, 410, 413] {
            assert!(matches!(judge(status, None, "no"), Outcome::Refused { .. }), "{status}");
        }
    }

    #[test]
    fn a_text_of_an_error_does_not_give_the_address_away() {
        let url = Secret::new("http://127.0.0.1:1/services/T0/B0/secret".to_owned());
        let outcome = Client::new(Duration::from_secs(5)).post(&url, &[], b"{}");
        let Outcome::Retry { reason, .. } = outcome else { panic!("{outcome:?}") };
        assert!(!reason.contains("secret"), "{reason}");
    }
}
