//! RFC 9457 problem documents.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

/// An error as a client sees it.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    detail: String,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, detail: String) -> Self {
        Self { status, detail }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let title = self.status.canonical_reason().unwrap_or("error");
        let document = serde_json::json!({"type": "about:blank", "title": title, "status": self.status.as_u16(), "detail": self.detail});
        (self.status, [(header::CONTENT_TYPE, "application/problem+json")], document.to_string()).into_response()
    }
}
