//! The bodies of a connection's requests and answers, with a word to its watch when each ends.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Body as _, Frame, Incoming, SizeHint};

use super::watch::Watch;

/// What a client sends.
pub struct ReceivedBody {
    body: Incoming,
    watch: Arc<Watch>,
}

impl ReceivedBody {
    pub fn new(body: Incoming, watch: Arc<Watch>) -> Self {
        watch.asked(Instant::now());
        if body.is_end_stream() {
            watch.answering();
        }
        Self { body, watch }
    }
}

impl hyper::body::Body for ReceivedBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        let frame = Pin::new(&mut this.body).poll_frame(context);
        if matches!(frame, Poll::Ready(None)) || this.body.is_end_stream() {
            this.watch.answering();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// What a client is sent.
pub struct AnsweredBody {
    body: Body,
    watch: Arc<Watch>,
}

impl AnsweredBody {
    pub const fn new(body: Body, watch: Arc<Watch>) -> Self {
        Self { body, watch }
    }
}

impl hyper::body::Body for AnsweredBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for AnsweredBody {
    fn drop(&mut self) {
        self.watch.answered(Instant::now());
    }
}
