//! An answer ends when the credential does that it was given for.
//!
//! A credential is checked when a request's head arrives. The rest of the request may come much later, and its answer may be a
//! stream that never ends. Both stop when the session is signed out of, the token's job ends, or either expires.

use super::session::session_token;
use crate::App;
use axum::{
    body::{Body, Bytes, HttpBody},
    extract::{Request, State},
    http::{HeaderMap, Method, StatusCode},
    middleware::Next,
    response::{IntoResponse, Response},
};
use hyper::body::{Frame, SizeHint};
use std::{
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::Duration,
};
use tokio::task::AbortHandle;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use towpath_control::{Grant, credential_ended, presented};
use towpath_types::SecretString;

/// How long a request that only reads may take before its credential is watched. Most are answered sooner, and cost no watch.
const QUICK: Duration = Duration::from_millis(500);

/// The credential that a request shows.
#[derive(Clone)]
enum Shown {
    Token(String),
    Session(SecretString),
}

impl Shown {
    fn by(app: &App, headers: &HeaderMap) -> Option<Self> {
        // As the doors do: a valid token counts before a cookie.
        let token = presented(headers).filter(|token| app.identity.grant(token).is_some());
        token
            .map(Self::Token)
            .or_else(|| session_token(app, headers).map(Self::Session))
    }

    async fn ended(self, app: App) {
        match self {
            Self::Session(token) => app.sessions.ended(&token).await,
            Self::Token(token) => match app.identity.grant(&token) {
                Some(Grant::Hook { push, .. }) => app.pushes.until_over(push).await,
                Some(grant) => credential_ended(app.store.as_ref(), app.clock.as_ref(), &grant).await,
                None => {}
            },
        }
    }
}

/// Waits for a credential's end, once somebody asks. Clones share it.
///
/// A task of its own does so: a client that reads slowly would otherwise keep a connection to the database.
#[derive(Clone)]
struct Watch(Arc<Watched>);

struct Watched {
    app: App,
    shown: Shown,
    ended: OnceLock<(CancellationToken, AbortHandle)>,
}

impl Watch {
    fn new(app: App, shown: Shown) -> Self {
        let ended = OnceLock::new();
        Self(Arc::new(Watched { app, shown, ended }))
    }

    /// Completes when the credential has ended.
    fn ended(&self) -> WaitForCancellationFutureOwned {
        let begin = || {
            let ended = CancellationToken::new();
            let watch = self.0.shown.clone().ended(self.0.app.clone());
            let told = ended.clone();
            let task = tokio::spawn(async move {
                watch.await;
                told.cancel();
            });
            (ended, task.abort_handle())
        };
        self.0.ended.get_or_init(begin).0.clone().cancelled_owned()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some((_, task)) = self.ended.get() {
            task.abort();
        }
    }
}

/// Ends a request and its answer with the credential of the request.
///
/// A change that has arrived whole is carried out: it was allowed when it arrived. The doors check credentials; this goes behind
/// them.
pub(crate) async fn while_allowed(State(app): State<App>, request: Request, next: Next) -> Response {
    let Some(shown) = Shown::by(&app, request.headers()) else {
        return next.run(request).await;
    };
    let watch = Watch::new(app, shown);
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    let request = request.map(|body| match body.is_end_stream() {
        true => body,
        false => Lasting::body(body, watch.clone()),
    });
    let answer = next.run(request);
    let response = if reads {
        let over = async {
            tokio::time::sleep(QUICK).await;
            watch.ended().await;
        };
        tokio::select! {
            biased;
            response = answer => response,
            () = over => return over_answer(),
        }
    } else {
        answer.await
    };
    // An answer of a known size is there already.
    response.map(|body| match body.size_hint().exact() {
        Some(_) => body,
        None => Lasting::body(body, watch),
    })
}

fn over_answer() -> Response {
    let text = "the session or the job that this request belongs to has ended";
    (StatusCode::UNAUTHORIZED, text).into_response()
}

/// A body that breaks off when its credential ends.
struct Lasting {
    inner: Body,
    watch: Watch,
    /// Set once the body was waited for. A body that is there at once costs no watch.
    ended: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    broke_off: bool,
}

impl Lasting {
    fn body(inner: Body, watch: Watch) -> Body {
        Body::new(Self {
            inner,
            watch,
            ended: None,
            broke_off: false,
        })
    }
}

impl HttpBody for Lasting {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        if this.broke_off {
            return Poll::Ready(None);
        }
        if this.ended.is_none() {
            let polled = Pin::new(&mut this.inner).poll_frame(context);
            if polled.is_ready() {
                return polled;
            }
        }
        let ended = this.ended.get_or_insert_with(|| Box::pin(this.watch.ended()));
        if ended.as_mut().poll(context).is_ready() {
            this.broke_off = true;
            let text = "the credential of this request has ended";
            return Poll::Ready(Some(Err(axum::Error::new(std::io::Error::other(text)))));
        }
        Pin::new(&mut this.inner).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.broke_off || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
