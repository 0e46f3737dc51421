//! The log of a panic says where it happened, and shows nothing of its message.

use std::process::Command;

use dsql_view::lambda::panics;
use dsql_view::observe::logs;
use serde_json::Value;

const AS_A_FUNCTION: &str = "PANIC_AS_A_FUNCTION";
const FORMAT: &str = "AWS_LAMBDA_LOG_FORMAT";
const MARK: &str = "alice@example.com";

/// Panics with the mark in the message: in an invocation, in a task and in a thread.
async fn panic_everywhere() {
    logs::init(|name| std::env::var(name).ok());
    panics::log_places_alone();
    // The output of the test begins on a new line.
    println!();
    let failed = panics::failing::<()>(async { panic!("no {MARK}") }).await.unwrap_err();
    println!("{failed:?}");
    tokio::spawn(async { panic!("{MARK}") }).await.unwrap_err();
    std::thread::spawn(|| std::panic::panic_any(MARK.to_owned())).join().unwrap_err();
    let done = panics::failing(async { Ok(1) }).await.unwrap();
    assert_eq!(done, 1);
}

#[tokio::test]
async fn a_panic_is_logged_by_its_place_and_answered_without_its_message() {
    if std::env::var_os(AS_A_FUNCTION).is_some() {
        return panic_everywhere().await;
    }
    for format in ["JSON", "Text"] {
        let mut process = Command::new(std::env::current_exe().unwrap());
        let process = process.args(["--exact", "--nocapture"]).env(AS_A_FUNCTION, "").env(FORMAT, format);
        let ended = process.arg("a_panic_is_logged_by_its_place_and_answered_without_its_message").output().unwrap();
        let (out, err) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
        assert!(ended.status.success(), "{out}{err}");
        assert!(!out.contains(MARK) && !err.contains(MARK), "{out}{err}");
        assert!(out.contains("the function panicked"), "{out}");
        let logged: Vec<&str> = out.lines().filter(|line| line.contains("ERROR")).collect();
        assert_eq!(logged.len(), 3, "{out}");
        for line in logged {
            assert!(line.contains("panicked") && line.contains("tests/panics.rs:"), "{line}");
            assert_eq!(serde_json::from_str::<Value>(line).is_ok(), format == "JSON", "{line}");
        }
    }
}
