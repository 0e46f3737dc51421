//! The function over TLS: whom it trusts, and the proxy that it uses.

use std::path::Path;
use std::time::Duration;

use dsql_view_support::cdc::{Change, Value};
use dsql_view_support::dynamodb::{LocalDynamoDb, environment};
use dsql_view_support::kinesis::{event_of, reported};
use dsql_view_support::runtime_api::Function;
use dsql_view_support::tls::{TlsFront, TunnelProxy};

const COMMIT: u64 = 1_773_843_841_076_494_565;
const VIEW: &str = "view";
const LONG: Duration = Duration::from_secs(60);

fn start(front: &TlsFront, settings: &[(&'static str, String)]) -> Function {
    let mut variables = environment(&front.endpoint());
    variables.extend([("VIEW_TABLE", VIEW.to_owned()), ("SOURCE_TABLES", "users(id)".to_owned())]);
    variables.extend_from_slice(settings);
    Function::start(Path::new(env!("CARGO_BIN_EXE_dsql-view")), variables).unwrap()
}

/// A view over TLS, and the setting that makes a function trust its certificate.
async fn view() -> (LocalDynamoDb, TlsFront, (&'static str, String)) {
    let db = LocalDynamoDb::start();
    db.create_view(VIEW).await;
    let front = TlsFront::before(&db.endpoint());
    let trust = ("SSL_CERT_FILE", front.certificate().to_string_lossy().into_owned());
    (db, front, trust)
}

/// Delivers more rows than there are connections at first, and looks for them in the view.
async fn writes_arrive(function: &mut Function, db: &LocalDynamoDb) {
    let changes = (0..100).map(|row| Change::upsert("users", Value::number(row), COMMIT, vec![]).record());
    let answer = function.invoke(event_of(changes).to_string(), LONG).await.response();
    assert!(reported(&answer).is_empty(), "{:?}", function.lines());
    assert_eq!(db.items(VIEW).await.len(), 100);
}

#[tokio::test]
async fn a_named_authority_is_trusted_and_an_unreadable_one_is_logged() {
    let (db, front, (variable, _)) = view().await;
    let authority = front.certificate();
    let with_another = authority.with_file_name("authorities.pem");
    let no_certificate = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    std::fs::write(&with_another, std::fs::read_to_string(authority).unwrap() + no_certificate).unwrap();
    for (file, all_are_read) in [(authority, true), (&with_another, false)] {
        let trust = (variable, file.to_string_lossy().into_owned());
        let mut function = start(&front, &[trust, ("AWS_LAMBDA_LOG_FORMAT", "JSON".to_owned())]);
        writes_arrive(&mut function, &db).await;
        function.log_line("batch", 1).await.expect("a line of the batch");
        let lines = function.lines();
        let told = lines.iter().any(|line| line.contains("not all certificates of authorities can be read"));
        assert_ne!(told, all_are_read, "{lines:?}");
    }
}

#[tokio::test]
async fn a_server_that_nobody_vouches_for_is_refused_with_the_reason() {
    let (_db, front, _) = view().await;
    let (_, stranger, trust_in_a_stranger) = view().await;
    assert_ne!(front.endpoint(), stranger.endpoint());
    for settings in [&[][..], &[trust_in_a_stranger]] {
        let mut function = start(&front, settings);
        let status = tokio::time::timeout(LONG, function.ended()).await.expect("the function ends").unwrap();
        assert!(!status.success(), "{status}");
        let told = function.init_error().expect("Lambda was told of the error");
        let message = told["errorMessage"].as_str().unwrap();
        assert!(message.contains("no answer on the table view") && message.contains("certificate"), "{message}");
    }
}

#[tokio::test]
async fn requests_go_through_the_named_proxy_except_to_the_hosts_in_no_proxy() {
    let (db, front, trust) = view().await;
    let proxy = TunnelProxy::start();
    let through = ("HTTPS_PROXY", format!("http://reader:secret@{}", proxy.address()));
    writes_arrive(&mut start(&front, &[trust.clone(), through.clone()]), &db).await;
    let asked = proxy.asked();
    let expected = format!("CONNECT {} HTTP/1.1", front.endpoint().trim_start_matches("https://"));
    assert!(asked.contains(&expected), "{asked:?}");
    // reader:secret
    assert!(asked.contains(&"Proxy-Authorization: Basic cmVhZGVyOnNlY3JldA==".to_owned()), "{asked:?}");

    let besides = ("NO_PROXY", "localhost".to_owned());
    writes_arrive(&mut start(&front, &[trust, through, besides]), &db).await;
    assert_eq!(proxy.asked(), asked);
}
