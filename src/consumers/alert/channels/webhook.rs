//! Any HTTP server: the message as JSON, signed.
//!
//! `Idempotency-Key` and `X-Leeway-Delivery` are the message's key: a receiver that has seen it may answer 200 and forget it. With a secret,
//! `X-Leeway-Signature` is `sha256=` and the HMAC of the body in hexadecimal.

use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::super::message::Message;
use super::super::outbox::{Outcome, Payload};
use super::Channel;
use super::http::Client;
use crate::config::Secret;

/// A receiver.
pub struct Webhook {
    client: Client,
    url: Secret,
    secret: Option<Secret>,
}

impl Webhook {
    /// A receiver; with a secret, what is sent to it is signed.
    #[must_use]
    pub fn new(url: Secret, secret: Option<Secret>, timeout: Duration) -> Self {
        Self {
            client: Client::new(timeout),
            url,
            secret,
        }
    }

    fn post(&self, message: &Message) -> Outcome {
        // Messages serialise: no map with keys that are no texts, no failing serialiser.
        let body = serde_json::to_vec(message).unwrap_or_default();
        let signature = self.secret.as_ref().map(|secret| signature(secret, &body));
        let mut headers = vec![("Idempotency-Key", message.key.as_str()), ("X-Leeway-Delivery", message.key.as_str())];
        if let Some(signature) = &signature {
            headers.push(("X-Leeway-Signature", signature));
        }
        self.client.post(&self.url, &headers, &body)
    }
}

impl Channel for Webhook {
    fn deliver(&mut self, payload: &Payload) -> Outcome {
        match payload {
            Payload::Message(message) => self.post(message),
            Payload::Log(_) => Outcome::Delivered,
        }
    }
}

/// `sha256=` and the HMAC.
#[expect(clippy::expect_used, reason = "HMAC takes a key of any length")]
fn signature(secret: &Secret, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes()).expect("a key");
    mac.update(body);
    let hex: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256={hex}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_that_of_rfc_4231() {
        // Its second test case.
        let secret = Secret::new("Jefe".to_owned());
        let expected = "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(signature(&secret, b"what do ya want for nothing?"), expected);
    }
}
