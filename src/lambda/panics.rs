//! Panics without their messages, because a message can quote values, such as a row's text.
//!
//! Invariant: the log and Lambda learn nothing of a panic, except that it happened and where in the code.

use std::future::Future;
use std::panic::{self, AssertUnwindSafe};

use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use lambda_runtime::Diagnostic;

/// Logs all panics of the process as errors, in place of the text that Rust prints. The log must have been started.
pub fn log_places_alone() {
    panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(|place| format!("{}:{}", place.file(), place.line()));
        tracing::error!(place, "panicked");
    }));
}

/// Lets an invocation that panics fail, so that its event comes again. The future is boxed, because it is large.
pub fn failing<'i, A: 'i>(
    invocation: impl Future<Output = Result<A, Diagnostic>> + 'i,
) -> LocalBoxFuture<'i, Result<A, Diagnostic>> {
    // The next event meets the state that a panic leaves. The runtime alone would do the same: it, too, takes the next
    // event after a panic.
    let caught = AssertUnwindSafe(invocation).catch_unwind();
    let failed = || Diagnostic {
        error_type: "Panicked".to_owned(),
        error_message: "the function panicked; its log says where".to_owned(),
    };
    caught.map(move |ended| ended.unwrap_or_else(|_| Err(failed()))).boxed_local()
}
