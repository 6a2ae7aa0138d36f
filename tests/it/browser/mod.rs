//! The dashboard's page in a real browser: `ui/tests/` drives it, and tells this process over a socket what to serve. What is served is the real
//! server on the embedded broker; only the events are made up, by the formulas of the dataflow.
//!
//! Not run with the others, since it needs Node.js and Chromium: `make ui-test`, `make screenshots`.

mod place;
mod stream;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Command;

use place::Kind;
use serde_json::{Value, json};
use stream::{Drift, Shape, World};

/// Runs a script of `ui/` that may ask for servers, and expects it to succeed.
fn drive(arguments: &[&str]) {
    let tokio = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let control = listener.local_addr().expect("an address").to_string();
    let mut node = Command::new("node")
        .args(arguments)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/ui"))
        .env("LEEWAY_CONTROL", control)
        .spawn()
        .expect("Node.js is installed");
    std::thread::spawn(move || {
        // One script, one connection.
        if let Ok((connection, _)) = listener.accept() {
            serve(&tokio, &connection);
        }
        tokio.shutdown_background();
    });
    let status = node.wait().expect("a status");
    assert!(status.success(), "node {} ended with {status}", arguments.join(" "));
}

/// Does what each line says, and answers it by a line.
fn serve(tokio: &tokio::runtime::Runtime, connection: &TcpStream) {
    let mut world: Option<World> = None;
    let lines = BufReader::new(connection.try_clone().expect("a connection")).lines();
    for line in lines.map_while(Result::ok) {
        let asked: Value = serde_json::from_str(&line).expect("JSON");
        let number = |name: &str, default: u64| asked[name].as_u64().unwrap_or(default);
        let answer = match asked["do"].as_str().unwrap_or_default() {
            "start" => {
                if let Some(mut old) = world.take() {
                    tokio.block_on(old.stop());
                }
                let shape = Shape {
                    features: number("features", 12) as usize,
                    partitions: number("partitions", 2) as i32,
                    checks: number("checks", 0),
                    monitors: number("monitors", 1) as usize,
                    is_scene: asked["scene"] == true,
                    segments: number("segments", 0) as usize,
                    has_global: asked["global"] == true,
                    window: if asked["window"] == "time" { Kind::Time } else { Kind::Count },
                };
                let mut new = World::new(&shape);
                let url = tokio.block_on(new.start());
                world = Some(new);
                json!({"url": url})
            }
            "push" => {
                let world = world.as_mut().expect("a world");
                let drift = asked["drift"].as_str().map(|feature| Drift {
                    feature,
                    segment: asked["segment"].as_str(),
                    global_only: asked["only"] == "global",
                });
                for _ in 0..number("checks", 1) {
                    world.push(drift);
                }
                json!({})
            }
            "stop" => {
                tokio.block_on(world.as_mut().expect("a world").stop());
                json!({})
            }
            "restart" => json!({"url": tokio.block_on(world.as_mut().expect("a world").start())}),
            other => panic!("nothing to do for {other:?}"),
        };
        let mut connection = connection;
        if writeln!(connection, "{answer}").is_err() {
            break;
        }
    }
    if let Some(mut world) = world {
        tokio.block_on(world.stop());
    }
}

#[test]
#[ignore = "needs Node.js and Chromium: make ui-test"]
fn the_page_does_what_it_says_in_a_real_browser() {
    drive(&["--test", "--test-reporter=spec", "tests/dashboard.test.mjs"]);
}

#[test]
#[ignore = "needs Node.js and Chromium: make screenshots"]
fn the_pictures_of_the_page_are_taken() {
    drive(&["tests/screenshots.mjs"]);
}
