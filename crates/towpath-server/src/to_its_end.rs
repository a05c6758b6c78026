//! Runs requests that change something to their end.
//!
//! A server drops the future of a request whose client disconnects, at whatever `await` it has reached. That would leave a
//! change of two steps half done.

use axum::{
    extract::Request,
    http::{Method, StatusCode},
    middleware::Next,
    response::{IntoResponse, Response},
};

/// Runs a request that may change something in a task of its own, which finishes even if nobody waits for the answer.
pub(crate) async fn to_its_end(request: Request, next: Next) -> Response {
    if matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS) {
        return next.run(request).await;
    }
    let shown = format!("{} {}", request.method(), request.uri().path());
    match tokio::spawn(next.run(request)).await {
        Ok(response) => response,
        Err(error) => {
            tracing::error!(request = shown, %error, "a request ended without an answer");
            let text = "this request ended without an answer; the server's log says why";
            (StatusCode::INTERNAL_SERVER_ERROR, text).into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use axum::{Router, body::Body, extract::State, middleware, routing::any};
    use std::{sync::Arc, time::Duration};
    use tokio::sync::{Notify, watch};
    use tower::ServiceExt;

    /// A change of two steps that waits in between.
    struct Change {
        begun: Notify,
        go_on: Notify,
        steps: watch::Sender<u32>,
    }

    async fn change(State(change): State<Arc<Change>>) {
        change.steps.send_modify(|steps| *steps += 1);
        change.begun.notify_one();
        change.go_on.notified().await;
        change.steps.send_modify(|steps| *steps += 1);
    }

    /// Drops a request between the two steps, and returns how many steps were done.
    async fn steps_of_dropped(method: Method) -> u32 {
        let change_of_two = Arc::new(Change {
            begun: Notify::new(),
            go_on: Notify::new(),
            steps: watch::Sender::new(0),
        });
        let router = Router::new()
            .route("/", any(change))
            .layer(middleware::from_fn(to_its_end))
            .with_state(change_of_two.clone());
        let request = Request::builder().method(method).uri("/").body(Body::empty()).unwrap();
        let client = tokio::spawn(router.oneshot(request));
        change_of_two.begun.notified().await;
        client.abort();
        assert!(client.await.unwrap_err().is_cancelled());
        change_of_two.go_on.notify_one();
        let mut steps = change_of_two.steps.subscribe();
        let both = steps.wait_for(|steps| *steps == 2);
        // Time is paused, so this ends once nothing runs any more.
        match tokio::time::timeout(Duration::from_secs(60), both).await {
            Ok(steps) => *steps.unwrap(),
            Err(_) => *change_of_two.steps.borrow(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_is_done_whole_although_its_client_hung_up() {
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH] {
            assert_eq!(steps_of_dropped(method).await, 2);
        }
        assert_eq!(
            steps_of_dropped(Method::GET).await,
            1,
            "reading needs nobody without a reader"
        );
    }
}
