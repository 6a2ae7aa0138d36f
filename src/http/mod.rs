//! The worker's own server: metrics and health; and what other servers of this program are made of ([`serve_router`]).
//!
//! ```text
//! GET /metrics        Prometheus' text format
//!     /health/live    200 while the process can do its work at all, else 503
//!     /health/ready   200 when everything is assigned and restored, else 503 with the reason
//! ```
//!
//! With a bearer token, everything but `/health/*` asks for it. Errors are RFC 9457 problem documents. It never writes anything anywhere.

use std::future::IntoFuture as _;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::config::{HttpConfig, Secret};
use crate::telemetry::metrics::{CONTENT_TYPE, Metrics};

mod health;
mod problem;
#[cfg(test)]
mod tests;

pub use health::Health;
pub(crate) use problem::Problem;

/// Ports tried after the default one is taken: a hundred workers on one machine.
const PORTS_TRIED: u16 = 100;

/// How long open requests may take after the server was asked to stop.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The address is taken.
    #[error("{section}: {address} is already in use; set {section}.port to another one, to 0 for any free one, or not at all for the next free one")]
    Taken {
        /// Of the configuration.
        section: &'static str,
        /// Which.
        address: String,
    },
    /// No port of the range is free.
    #[error("{section}: no free port on {host} from {first} to {last}; set {section}.port, 0 for any free one")]
    NoneFree {
        /// Of the configuration.
        section: &'static str,
        /// Where.
        host: String,
        /// First tried.
        first: u16,
        /// Last tried.
        last: u16,
    },
    /// The address cannot be bound.
    #[error("{section}: cannot listen on {address}: {error}; check {section}.host and {section}.port")]
    Bind {
        /// Of the configuration.
        section: &'static str,
        /// Which.
        address: String,
        /// Why.
        error: io::Error,
    },
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// The section of the configuration that says so, for errors.
    pub section: &'static str,
    /// Name or address to bind.
    pub host: String,
    /// 0: any free one.
    pub port: u16,
    /// If not, and it is taken, the next free one is used.
    pub port_is_set: bool,
}

/// Metrics of a process, as Prometheus reads them.
pub trait Exposition: Send + Sync {
    /// All of them in Prometheus' text format.
    ///
    /// # Errors
    /// When the encoder refuses a family: a fault of Leeway.
    fn render(&self) -> Result<String, prometheus::Error>;
}

impl Exposition for Metrics {
    fn render(&self) -> Result<String, prometheus::Error> {
        self.render()
    }
}

/// A running server. Dropping it lets it run on; [`Server::shutdown`] ends it.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    task: JoinHandle<io::Result<()>>,
}

impl Server {
    /// Where it listens, with the port that was found.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no more connections, lets open requests end within a bound, and ends.
    pub async fn shutdown(mut self) {
        self.stop.send_replace(true);
        if tokio::time::timeout(SHUTDOWN_TIMEOUT, &mut self.task).await.is_err() {
            self.task.abort();
        }
    }
}

/// Serves metrics and health on the runtime that polls this.
///
/// # Errors
/// When the address cannot be bound; if the port was not set, the next free one is taken.
pub async fn serve(config: &HttpConfig, metrics: Arc<dyn Exposition>, health: Arc<Health>) -> Result<Server, HttpError> {
    let listen = Listen {
        section: "http",
        host: config.host.clone(),
        port: config.port,
        port_is_set: config.port_is_set,
    };
    serve_router(&listen, |_| router(config.bearer_token.clone(), metrics, health)).await
}

/// Serves what `router` makes on the runtime that polls this. It is given what tells when the server is to stop: answers that go on for ever end then.
///
/// # Errors
/// As [`serve`].
pub async fn serve_router(listen: &Listen, router: impl FnOnce(watch::Receiver<bool>) -> Router) -> Result<Server, HttpError> {
    let bind_error = |error| HttpError::Bind {
        section: listen.section,
        address: format!("{}:{}", listen.host, listen.port),
        error,
    };
    let listener = bind(listen)?;
    listener.set_nonblocking(true).map_err(bind_error)?;
    let address = listener.local_addr().map_err(bind_error)?;
    let listener = tokio::net::TcpListener::from_std(listener).map_err(bind_error)?;
    let (stop, stopped) = watch::channel(false);
    let server = axum::serve(listener, router(stopped.clone())).with_graceful_shutdown(until(stopped));
    Ok(Server {
        address,
        stop,
        task: tokio::spawn(server.into_future()),
    })
}

pub(crate) async fn until(mut stopped: watch::Receiver<bool>) {
    // A dropped handle is not the wish to stop.
    if stopped.wait_for(|stopped| *stopped).await.is_err() {
        std::future::pending().await
    }
}

fn bind(listen: &Listen) -> Result<TcpListener, HttpError> {
    let Listen {
        section,
        host,
        port,
        port_is_set,
    } = listen;
    let last = if *port_is_set || *port == 0 {
        *port
    } else {
        port.saturating_add(PORTS_TRIED)
    };
    for port in *port..=last {
        let address = format!("{host}:{port}");
        // Two steps: the resolver takes IPv6 addresses without brackets only as a pair.
        let bound = (host.as_str(), port)
            .to_socket_addrs()
            .and_then(|addresses| TcpListener::bind(&*addresses.collect::<Vec<_>>()));
        match bound {
            Ok(listener) => return Ok(listener),
            Err(error) if error.kind() != io::ErrorKind::AddrInUse => return Err(HttpError::Bind { section, address, error }),
            Err(_) if *port_is_set => return Err(HttpError::Taken { section, address }),
            Err(_) => {}
        }
    }
    Err(HttpError::NoneFree {
        section,
        host: host.clone(),
        first: *port,
        last,
    })
}

fn router(bearer_token: Option<Secret>, metrics: Arc<dyn Exposition>, health: Arc<Health>) -> Router {
    let guarded = Router::new()
        .route("/metrics", get(render))
        .with_state(metrics)
        .fallback(async |uri: Uri| Problem::new(StatusCode::NOT_FOUND, format!("there is nothing at {}", uri.path())))
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn_with_state(Arc::new(bearer_token), authorize));
    let open = Router::new()
        .route(
            "/health/live",
            get(async |State(health): State<Arc<Health>>| health_response(health.live())),
        )
        .route(
            "/health/ready",
            get(async |State(health): State<Arc<Health>>| health_response(health.ready())),
        )
        .with_state(health)
        .method_not_allowed_fallback(method_not_allowed);
    open.merge(guarded)
}

async fn render(State(metrics): State<Arc<dyn Exposition>>) -> Response {
    match metrics.render() {
        Ok(text) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(error) => Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

pub(crate) fn health_response(state: Result<String, String>) -> Response {
    match state {
        Ok(text) => text.into_response(),
        Err(reason) => Problem::new(StatusCode::SERVICE_UNAVAILABLE, reason).into_response(),
    }
}

pub(crate) async fn method_not_allowed(method: Method, uri: Uri) -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, format!("{} takes GET, not {method}", uri.path()))
}

async fn authorize(State(token): State<Arc<Option<Secret>>>, headers: HeaderMap, request: Request, next: Next) -> Response {
    match &*token {
        Some(token) if !carries(&headers, token) => {
            let problem = Problem::new(
                StatusCode::UNAUTHORIZED,
                "send the header `Authorization: Bearer <http.bearer_token>`".to_owned(),
            );
            ([(header::WWW_AUTHENTICATE, "Bearer")], problem).into_response()
        }
        _ => next.run(request).await,
    }
}

/// Compares in a time that depends on the length alone, so that the token cannot be guessed byte by byte.
fn carries(headers: &HeaderMap, token: &Secret) -> bool {
    let Some(given) = headers.get(header::AUTHORIZATION).and_then(|value| value.as_bytes().split_at_checked(7)) else {
        return false;
    };
    let (scheme, given) = given;
    let expected = token.expose().as_bytes();
    let difference = given.iter().zip(expected).fold(0, |difference, (a, b)| difference | (a ^ b));
    scheme.eq_ignore_ascii_case(b"bearer ") && given.len() == expected.len() && difference == 0
}
