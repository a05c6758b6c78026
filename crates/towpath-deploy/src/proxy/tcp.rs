//! Connections that are spliced to one backend.

use super::{
    backends::{Lease, Use},
    port::{Port, WAIT_FOR_BACKEND},
};
use std::{collections::BTreeSet, time::Duration};
use tokio::{net::TcpStream, time::Instant};

const CONNECT: Duration = Duration::from_secs(2);

pub(super) async fn connection(port: Port, mut client: TcpStream) {
    let Some((mut server, lease)) = connect(&port).await else {
        tracing::debug!(port = port.number, "no backend for a connection");
        return;
    };
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
        () = port.stop.cancelled() => {}
    }
    drop(lease);
}

async fn connect(port: &Port) -> Option<(TcpStream, Lease)> {
    let deadline = Instant::now() + WAIT_FOR_BACKEND;
    let mut avoid = BTreeSet::new();
    loop {
        let pool = port.backends.pool_of_port(port.number)?;
        let lease = port.backends.lease(&pool, Use::Stream, &mut avoid, deadline).await?;
        match tokio::time::timeout(CONNECT, TcpStream::connect(lease.address())).await {
            Ok(Ok(stream)) => {
                let _ = stream.set_nodelay(true);
                return Some((stream, lease));
            }
            _ if Instant::now() >= deadline => return None,
            _ => {
                avoid.insert(lease.address());
            }
        }
    }
}
