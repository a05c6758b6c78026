//! Connections: limits their number, and how long one may stay open without progress.

use axum::{body::Body, extract::Request, response::Response, serve::Listener};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use std::{
    convert::Infallible,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Semaphore,
    time::{Instant, Sleep},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::{Service, ServiceExt};

/// The limits for clients.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// The most connections at once. Further connections wait until one ends.
    pub connections: usize,
    /// How long a client may take to send a request's head, and how long a kept-alive connection may stay idle.
    pub head: Duration,
    /// How long a connection may make no progress in the middle of a request: no byte arrives, and none can be sent.
    pub still: Duration,
    /// How long open requests may take to finish once the server stops.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            head: Duration::from_secs(20),
            // Long polls are answered within half a minute, and events are kept alive. Git and the registry may work for a
            // while before they send anything.
            still: Duration::from_secs(15 * 60),
            grace: Duration::from_secs(3),
        }
    }
}

/// Serves the connections of `listener` until `shutdown`, and then lets open requests finish for a moment.
pub(crate) async fn serve<L, S>(mut listener: L, service: S, limits: Limits, shutdown: CancellationToken)
where
    L: Listener,
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let places = Arc::new(Semaphore::new(limits.connections));
    let under_way = TaskTracker::new();
    loop {
        let accepted = async {
            // Wait before accepting: a connection beyond the limit waits in the kernel's queue and costs nothing here.
            let place = places.clone().acquire_owned().await.ok()?;
            Some((listener.accept().await.0, place))
        };
        let Some(Some((stream, place))) = shutdown.run_until_cancelled(accepted).await else {
            break;
        };
        let service = service
            .clone()
            .map_request(|request: Request<Incoming>| request.map(Body::new));
        let (limits, shutdown) = (limits.clone(), shutdown.clone());
        under_way.spawn(async move {
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(limits.head)
                .serve_connection(
                    TokioIo::new(Moving::new(stream, limits.still)),
                    TowerToHyperService::new(service),
                );
            let mut connection = std::pin::pin!(connection);
            // A client may disconnect at any time.
            tokio::select! {
                _ = connection.as_mut() => {}
                () = shutdown.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    let _ = connection.await;
                }
            }
            drop(place);
        });
    }
    under_way.close();
    // Long polls and event streams end only with their clients, so limit the wait.
    let _ = tokio::time::timeout(limits.grace, under_way.wait()).await;
}

/// A stream that fails after a time without progress.
struct Moving<C> {
    inner: C,
    still: Duration,
    until: Pin<Box<Sleep>>,
}

impl<C> Moving<C> {
    fn new(inner: C, still: Duration) -> Self {
        Self {
            inner,
            still,
            until: Box::pin(tokio::time::sleep(still)),
        }
    }

    fn note<T>(&mut self, context: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.until.as_mut().reset(Instant::now() + self.still);
            return polled;
        }
        match self.until.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for Moving<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_read(context, buffer);
        self.note(context, polled)
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Moving<C> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.note(context, polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use axum::{Router, body::Bytes, routing::post};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
        sync::mpsc,
    };

    struct Connections(mpsc::UnboundedReceiver<DuplexStream>);

    impl Listener for Connections {
        type Io = DuplexStream;
        type Addr = ();

        async fn accept(&mut self) -> (DuplexStream, ()) {
            match self.0.recv().await {
                Some(stream) => (stream, ()),
                None => std::future::pending().await,
            }
        }

        fn local_addr(&self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A server with room for two connections, and how to connect to it.
    fn server() -> (mpsc::UnboundedSender<DuplexStream>, CancellationToken) {
        let (connect, connections) = mpsc::unbounded_channel();
        let shutdown = CancellationToken::new();
        let limits = Limits {
            connections: 2,
            ..Limits::default()
        };
        let router = Router::new().route("/", post(|body: Bytes| async move { body }));
        tokio::spawn(serve(Connections(connections), router, limits, shutdown.clone()));
        (connect, shutdown)
    }

    fn connect(to: &mpsc::UnboundedSender<DuplexStream>) -> DuplexStream {
        let (client, server) = tokio::io::duplex(1 << 16);
        to.send(server).unwrap();
        client
    }

    async fn all(mut client: DuplexStream) -> String {
        let mut bytes = Vec::new();
        client.read_to_end(&mut bytes).await.unwrap();
        String::from_utf8(bytes).unwrap()
    }

    const ASKED: &[u8] = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi";

    #[tokio::test(start_paused = true)]
    async fn who_sends_nothing_loses_the_place() {
        let (to, _shutdown) = server();
        let begun = Instant::now();
        let mut half_a_head = connect(&to);
        half_a_head.write_all(b"POST / HT").await.unwrap();
        let mut half_a_body = connect(&to);
        half_a_body.write_all(&ASKED[..ASKED.len() - 1]).await.unwrap();
        let mut third = connect(&to);
        third.write_all(ASKED).await.unwrap();
        assert!(all(half_a_head).await.len() < 200);
        let answer = all(third).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hi"), "{answer}");
        let waited = begun.elapsed();
        assert!(waited <= Limits::default().head + Duration::from_secs(1), "{waited:?}");
        let answer = all(half_a_body).await;
        assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(begun.elapsed() <= Limits::default().still + Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_under_way_ends_when_the_server_stops() {
        let (to, shutdown) = server();
        let mut slow = connect(&to);
        slow.write_all(&ASKED[..ASKED.len() - 1]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
        shutdown.cancel();
        slow.write_all(&ASKED[ASKED.len() - 1..]).await.unwrap();
        assert!(all(slow).await.ends_with("hi"));
    }
}
