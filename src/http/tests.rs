use super::*;
use std::io::{Read as _, Write as _};

fn config(port: u16, port_is_set: bool, token: Option<&str>) -> HttpConfig {
    HttpConfig {
        host: "127.0.0.1".to_owned(),
        port,
        port_is_set,
        advertised: None,
        bearer_token: token.map(|token| Secret::new(token.to_owned())),
    }
}

async fn start(config: &HttpConfig) -> (Server, Arc<Health>) {
    let health = Arc::new(Health::new());
    (serve(config, Arc::new(Metrics::new(100).unwrap()), health.clone()).await.unwrap(), health)
}

/// Status and the whole answer.
async fn ask(server: &Server, request: &str) -> (u16, String) {
    let (address, request) = (server.address(), format!("{request}Host: x\r\nConnection: close\r\n\r\n"));
    let exchange = move || {
        let mut connection = std::net::TcpStream::connect(address).unwrap();
        connection.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        answer
    };
    let answer = tokio::task::spawn_blocking(exchange).await.unwrap();
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
    (status, answer)
}

async fn get_path(server: &Server, path: &str) -> (u16, String) {
    ask(server, &format!("GET {path} HTTP/1.1\r\n")).await
}

#[tokio::test]
async fn metrics_are_served_in_prometheus_text_format() {
    let (server, _) = start(&config(0, true, None)).await;
    let (status, answer) = get_path(&server, "/metrics").await;
    assert_eq!(status, 200);
    assert!(
        answer.contains("text/plain; version=0.0.4") && answer.contains("leeway_build_info"),
        "{answer}"
    );
    server.shutdown().await;
}

#[tokio::test]
async fn ready_says_why_it_is_not() {
    let (server, health) = start(&config(0, true, None)).await;
    assert_eq!(get_path(&server, "/health/live").await.0, 200);
    let (status, answer) = get_path(&server, "/health/ready").await;
    assert!(
        status == 503 && answer.contains("application/problem+json") && answer.contains("\"detail\":\"starting\""),
        "{answer}"
    );
    health.set_ready(true, "assigned and restored");
    let (status, answer) = get_path(&server, "/health/ready").await;
    assert!(status == 200 && answer.ends_with("assigned and restored"), "{answer}");
    health.set_live(false);
    assert_eq!(get_path(&server, "/health/live").await.0, 503);
}

#[tokio::test]
async fn unknown_paths_and_methods_are_answered_with_problem_documents() {
    let (server, _) = start(&config(0, true, None)).await;
    let (status, answer) = get_path(&server, "/metric").await;
    assert!(
        status == 404 && answer.contains("application/problem+json") && answer.contains("\"status\":404"),
        "{answer}"
    );
    for path in ["/metrics", "/health/live"] {
        let (status, answer) = ask(&server, &format!("POST {path} HTTP/1.1\r\nContent-Length: 0\r\n")).await;
        assert!(status == 405 && answer.contains("takes GET, not POST"), "{answer}");
    }
}

#[tokio::test]
async fn a_bearer_token_guards_everything_but_health() {
    let (server, _) = start(&config(0, true, Some("abc"))).await;
    for (header, expected) in [
        ("", 401),
        ("Authorization: Bearer abd\r\n", 401),
        ("Authorization: Bearer abcd\r\n", 401),
        ("authorization: bearer abc\r\n", 200),
    ] {
        let (status, answer) = ask(&server, &format!("GET /metrics HTTP/1.1\r\n{header}")).await;
        assert_eq!(status, expected, "{header}: {answer}");
    }
    assert_eq!(get_path(&server, "/nowhere").await.0, 401, "what exists is not told either");
    assert_eq!(get_path(&server, "/health/live").await.0, 200);
}

#[tokio::test]
async fn a_port_that_was_not_set_and_is_taken_gives_way_to_the_next_free_one() {
    let (first, _) = start(&config(0, true, None)).await;
    let taken = first.address().port();
    let error = serve(&config(taken, true, None), Arc::new(Metrics::new(1).unwrap()), Arc::default())
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains(&format!("127.0.0.1:{taken} is already in use")) && error.contains("http.port"),
        "{error}"
    );
    let (second, _) = start(&config(taken, false, None)).await;
    assert!(second.address().port() > taken);
}

#[tokio::test]
async fn an_address_that_cannot_be_bound_is_named() {
    let config = HttpConfig {
        host: "192.0.2.1".to_owned(),
        ..config(8000, true, None)
    };
    let error = serve(&config, Arc::new(Metrics::new(1).unwrap()), Arc::default())
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("192.0.2.1:8000") && error.contains("http.host"), "{error}");
}

#[tokio::test]
async fn a_server_that_was_shut_down_answers_no_more() {
    let (server, _) = start(&config(0, true, None)).await;
    let address = server.address();
    server.shutdown().await;
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}
