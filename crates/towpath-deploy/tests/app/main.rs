//! The program that the tests of this crate run in containers: a configurable application, and the proxy.
//!
//! `… proxy --routes DIR` is the proxy. `… exit CODE [TEXT]` prints and exits, after `EXIT_AFTER_MS`; `… append PATH TEXT` adds
//! a line to a file; `… there PATH` reports by its exit code whether a file exists. Otherwise it is an HTTP server on `PORT`
//! (8080): `/` answers `VERSION`, `/slow?MS` answers after a delay, `/env?NAME` an environment variable, `/file?PATH` a file,
//! `/hex?PATH` a file's bytes, `/write?PATH=TEXT` writes a file, `/get?HOST:PORT` returns another server's answer on `/`, `/ready` and `/live` are for
//! probes, `/sicken` makes `/live` fail and `/unready` makes `/ready` fail from then on.
//!
//! Settings: `START_MS` before it listens, `NOT_READY` (never ready), `DIE_AFTER_MS`, `SAY` (printed at the start), `ON_TERM`
//! (a file that gets a line at SIGTERM), `DEAF` (ignores SIGTERM).
//!
//! SIGTERM ends it at once, including open requests: whoever stops it must have drained it.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, StatusCode, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use std::{
    convert::Infallible,
    net::Ipv4Addr,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn knob(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn milliseconds(name: &str) -> Option<Duration> {
    Some(Duration::from_millis(
        knob(name)?.parse().expect("a number of milliseconds"),
    ))
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("proxy") => {
            let options = towpath_deploy::proxy::ProxyOptions {
                routes_dir: arguments[2].clone().into(),
            };
            towpath_deploy::proxy::run(options).await.expect("the proxy runs");
        }
        Some("exit") => {
            if let Some(text) = arguments.get(2) {
                println!("{text}");
            }
            if let Some(pause) = milliseconds("EXIT_AFTER_MS") {
                tokio::time::sleep(pause).await;
            }
            std::process::exit(arguments[1].parse().expect("an exit code"));
        }
        Some("append") => append(&arguments[1], &arguments[2]),
        Some("there") => std::process::exit(i32::from(!std::path::Path::new(&arguments[1]).exists())),
        _ => serve().await,
    }
}

fn append(path: &str, line: &str) {
    use std::io::Write;
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .expect("a file that can be written");
    writeln!(file, "{line}").expect("room on the disk");
}

static SICK: AtomicBool = AtomicBool::new(false);
static UNREADY: AtomicBool = AtomicBool::new(false);

async fn serve() {
    if let Some(text) = knob("SAY") {
        println!("{text}");
    }
    if let Some(pause) = milliseconds("START_MS") {
        tokio::time::sleep(pause).await;
    }
    let port: u16 = knob("PORT").map_or(8080, |port| port.parse().expect("a port"));
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))
        .await
        .expect("a free port");
    println!("listening on {port}");
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).expect("signals");
    let death = async {
        match milliseconds("DIE_AFTER_MS") {
            Some(pause) => tokio::time::sleep(pause).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(death);
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted.expect("a connection");
                tokio::spawn(hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service_fn(answer)));
            }
            _ = terminate.recv() => {
                println!("terminated");
                if let Some(path) = knob("ON_TERM") {
                    append(&path, "terminated");
                }
                if knob("DEAF").is_none() {
                    return;
                }
            }
            () = &mut death => {
                println!("dying as told");
                std::process::exit(3);
            }
        }
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let query = request.uri().query().unwrap_or_default().to_string();
    let (status, text) = match request.uri().path() {
        "/ready" if knob("NOT_READY").is_some() => (StatusCode::SERVICE_UNAVAILABLE, "not ready".into()),
        "/ready" if UNREADY.load(Ordering::Relaxed) => (StatusCode::SERVICE_UNAVAILABLE, "no longer ready".into()),
        "/live" if SICK.load(Ordering::Relaxed) => (StatusCode::INTERNAL_SERVER_ERROR, "sick".into()),
        "/sicken" => {
            SICK.store(true, Ordering::Relaxed);
            (StatusCode::OK, "sick from now on".into())
        }
        "/unready" => {
            UNREADY.store(true, Ordering::Relaxed);
            (StatusCode::OK, "not ready from now on".into())
        }
        "/slow" => {
            tokio::time::sleep(Duration::from_millis(query.parse().unwrap_or(0))).await;
            (StatusCode::OK, knob("VERSION").unwrap_or_default())
        }
        "/env" => (StatusCode::OK, knob(&query).unwrap_or_else(|| "(unset)".into())),
        "/file" => match std::fs::read_to_string(&query) {
            Ok(text) => (StatusCode::OK, text),
            Err(error) => (StatusCode::NOT_FOUND, error.to_string()),
        },
        "/hex" => match std::fs::read(&query) {
            Ok(bytes) => {
                let digits = bytes.iter().map(|byte| format!("{byte:02x}"));
                (StatusCode::OK, digits.collect())
            }
            Err(error) => (StatusCode::NOT_FOUND, error.to_string()),
        },
        "/write" => {
            let (path, text) = query.split_once('=').unwrap_or((&query, ""));
            match std::fs::write(path, text) {
                Ok(()) => (StatusCode::OK, "written".into()),
                Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
            }
        }
        "/get" => match get(&query).await {
            Ok(text) => (StatusCode::OK, text),
            Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()),
        },
        "/count" => {
            let size = request
                .into_body()
                .collect()
                .await
                .map_or(0, |body| body.to_bytes().len());
            (StatusCode::OK, size.to_string())
        }
        _ => (StatusCode::OK, knob("VERSION").unwrap_or_default()),
    };
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    Ok(response)
}

async fn get(authority: &str) -> std::io::Result<String> {
    let mut stream = tokio::net::TcpStream::connect(authority).await?;
    let request = format!("GET / HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    Ok(text
        .split_once("\r\n\r\n")
        .map_or(text.clone(), |(_, body)| body.to_string()))
}
