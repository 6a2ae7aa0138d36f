//! The page itself: what Vite built of `ui/`, embedded into the binary.

use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{Html, IntoResponse, Response};
use rust_embed::RustEmbed;

use crate::http::Problem;

#[derive(RustEmbed)]
#[folder = "ui/dist/"]
#[allow_missing = true]
struct Page;

/// Shown by a binary that was built without the page.
const NOT_BUILT: &str = include_str!("not_built.html");

/// Nothing but this server's own files, no frames, no plugins.
const POLICY: &str = "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; object-src 'none'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";

/// Files below this have their content's hash in their names.
const HASHED: &str = "assets/";

/// A file of the page; the page itself at `/`.
pub(super) async fn get(uri: Uri, headers: HeaderMap) -> Response {
    let path = match uri.path().trim_start_matches('/') {
        "" => "index.html",
        path => path,
    };
    let mut response = match file(path, accepts_gzip(&headers)) {
        Some(response) => response,
        None if path == "index.html" => Html(NOT_BUILT).into_response(),
        None => return Problem::new(StatusCode::NOT_FOUND, format!("there is nothing at {}", uri.path())).into_response(),
    };
    let cached = if path.starts_with(HASHED) {
        "public, max-age=31536000, immutable"
    } else {
        "no-cache"
    };
    for (name, value) in [
        (header::CACHE_CONTROL, cached),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// The file, or its compressed twin that the build put beside it.
fn file(path: &str, gzip: bool) -> Option<Response> {
    let content_type = content_type(path);
    if gzip && let Some(compressed) = Page::get(&format!("{path}.gz")) {
        let headers = [
            (header::CONTENT_TYPE, content_type),
            (header::CONTENT_ENCODING, "gzip"),
            (header::VARY, "accept-encoding"),
        ];
        return Some((headers, compressed.data).into_response());
    }
    let file = Page::get(path)?;
    Some(([(header::CONTENT_TYPE, content_type)], file.data).into_response())
}

fn accepts_gzip(headers: &HeaderMap) -> bool {
    let accepted = headers
        .get(header::ACCEPT_ENCODING)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    accepted
        .split(',')
        .any(|coding| coding.split(';').next().is_some_and(|name| name.trim() == "gzip"))
}

/// Of the few kinds of files that a build makes.
fn content_type(path: &str) -> &'static str {
    match path.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("json") => "application/json",
        _ => "application/octet-stream",
    }
}

/// Whether the page is in this binary.
#[cfg(test)]
pub(super) fn is_built() -> bool {
    Page::get("index.html").is_some()
}
