//! Panics without their messages: a message can quote what it was about, a row's text among it.
//!
//! Invariant: of a panic nothing is told but that it happened and where in the code, neither in the log nor to Lambda.

use std::future::Future;
use std::panic::{self, AssertUnwindSafe};

use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use lambda_runtime::Diagnostic;

/// Has panics of the whole process logged as errors, in place of what Rust prints. The log must have been started.
pub fn log_places_alone() {
    panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(|place| format!("{}:{}", place.file(), place.line()));
        tracing::error!(place, "panicked");
    }));
}

/// An invocation that fails where it panics, so that its event comes again. It is boxed, because it is large.
pub fn failing<'i, A: 'i>(
    invocation: impl Future<Output = Result<A, Diagnostic>> + 'i,
) -> LocalBoxFuture<'i, Result<A, Diagnostic>> {
    // What a panic leaves behind, the runtime would go on with as well: it, too, takes the next event after one.
    let caught = AssertUnwindSafe(invocation).catch_unwind();
    let failed = || Diagnostic {
        error_type: "Panicked".to_owned(),
        error_message: "the function panicked; its log says where".to_owned(),
    };
    caught.map(move |ended| ended.unwrap_or_else(|_| Err(failed()))).boxed_local()
}
