//! For which host a request is, on a real connection.

use super::world::World;
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::CancellationToken;

const BOUND: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_request_is_for_exactly_one_host() {
    let world = World::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let serving = tokio::spawn(towpath_server::serve(world.system.clone(), listener, shutdown.clone()));
    let status = async |head: &str| {
        let asked = async {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let request = format!("{head}connection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer.split(' ').nth(1).unwrap_or_default().to_string()
        };
        tokio::time::timeout(BOUND, asked).await.unwrap()
    };
    for path in ["/login", "/towpath", "/v2/", "/assets/nosuch", "/api/v2/me"] {
        for (hosts, expected) in [
            ("host: localhost\r\nhost: localhost\r\n", true),
            ("host: localhost\r\nHost: evil.example\r\n", true),
            ("host: evil.example\r\nhost: localhost\r\n", true),
            ("", true),
            ("host: localhost\r\n", false),
        ] {
            let status = status(&format!("GET {path} HTTP/1.1\r\n{hosts}")).await;
            assert_eq!(status == "400", expected, "{path} {hosts:?}: {status}");
        }
    }
    assert_eq!(status("GET /login HTTP/1.0\r\n").await, "200", "HTTP/1.0 needs no host");
    shutdown.cancel();
    serving.await.unwrap().unwrap();
}
