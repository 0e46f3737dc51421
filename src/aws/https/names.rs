//! The addresses behind a server's name: one look-up for all connections that are opened together.
//!
//! Invariant: the family of addresses that the system put first stays first, because the system knows which family has
//! a way out.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_smithy_runtime_api::client::dns::{DnsFuture, ResolveDns, ResolveDnsError};
use tokio::time::Instant;

use crate::lock::lock;

/// How long the connections that are opened together share an answer for a name.
const ANSWER_SHARED_FOR: Duration = Duration::from_secs(1);

/// Looks a name up once for all connections that are opened together, because each look-up takes a thread of its own,
/// and the thread's memory.
#[derive(Debug, Clone)]
pub(super) struct Names<R> {
    resolver: R,
    known: Arc<Mutex<HashMap<String, Known>>>,
}

/// The last answer for a name, and when it came. A connection that finds it locked waits for the next answer.
type Known = Arc<tokio::sync::Mutex<Option<(Instant, Vec<IpAddr>)>>>;

impl<R> Names<R> {
    pub(super) fn new(resolver: R) -> Self {
        Self { resolver, known: Arc::default() }
    }
}

impl<R: ResolveDns> ResolveDns for Names<R> {
    fn resolve_dns<'a>(&'a self, name: &'a str) -> DnsFuture<'a> {
        let known = Arc::clone(lock(&self.known).entry(name.to_owned()).or_default());
        DnsFuture::new(async move {
            let mut known = known.lock().await;
            if let Some((at, addresses)) = &mut *known
                && at.elapsed() < ANSWER_SHARED_FOR
            {
                rotate(addresses);
                return Ok(addresses.clone());
            }
            let addresses = by_family(self.resolver.resolve_dns(name).await?);
            *known = Some((Instant::now(), addresses.clone()));
            Ok(addresses)
        })
    }
}

/// The system's own look-up.
#[derive(Debug, Clone)]
pub(super) struct System;

impl ResolveDns for System {
    fn resolve_dns<'a>(&'a self, name: &'a str) -> DnsFuture<'a> {
        DnsFuture::new(async move {
            let found = tokio::net::lookup_host((name, 0)).await.map_err(ResolveDnsError::new)?;
            Ok(found.map(|address| address.ip()).collect())
        })
    }
}

/// The addresses of the first one's family, and then those of the other family. Each family keeps its order.
fn by_family(mut addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    let first_is_ipv6 = addresses.first().is_some_and(IpAddr::is_ipv6);
    addresses.sort_by_key(|address| address.is_ipv6() != first_is_ipv6);
    addresses
}

/// Lets each connection begin with another address of the same family. hyper tries the family of the first address
/// before the other.
fn rotate(addresses: &mut [IpAddr]) {
    for family in addresses.chunk_by_mut(|a, b| a.is_ipv6() == b.is_ipv6()) {
        family.rotate_left(1);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Answers with two addresses after a moment, and counts the questions. The first question fails.
    #[derive(Debug, Clone, Default)]
    struct Slow(Arc<AtomicUsize>);

    impl ResolveDns for Slow {
        fn resolve_dns<'a>(&'a self, _: &'a str) -> DnsFuture<'a> {
            let count = self.0.fetch_add(1, Ordering::Relaxed);
            DnsFuture::new(async move {
                tokio::time::sleep(Duration::from_millis(10)).await;
                if count == 0 { Err(ResolveDnsError::new("no answer")) } else { Ok(addresses().into()) }
            })
        }
    }

    fn addresses() -> [IpAddr; 2] {
        [[127, 0, 0, 1].into(), [127, 0, 0, 2].into()]
    }

    #[tokio::test(start_paused = true)]
    async fn connections_that_are_opened_together_ask_once_and_share_the_addresses() {
        let resolver = Slow::default();
        let names = Names::new(resolver.clone());
        let name = "dynamodb.us-east-1.amazonaws.com";
        assert!(names.resolve_dns(name).await.is_err());
        let asked = futures_util::future::join_all((0..50).map(|_| names.resolve_dns(name))).await;
        let firsts: Vec<IpAddr> = asked.into_iter().map(|found| found.unwrap()[0]).collect();
        for address in addresses() {
            assert_eq!(firsts.iter().filter(|first| **first == address).count(), 25);
        }
        assert_eq!(resolver.0.load(Ordering::Relaxed), 2);
        tokio::time::advance(ANSWER_SHARED_FOR).await;
        names.resolve_dns(name).await.unwrap();
        names.resolve_dns("localhost").await.unwrap();
        assert_eq!(resolver.0.load(Ordering::Relaxed), 4);
    }

    /// The addresses that this number of connections get, one after the other, if `answer` is the system's answer.
    async fn told(connections: usize, answer: &'static [&'static str]) -> Vec<Vec<IpAddr>> {
        let names = Names::new(Fixed(answer));
        let mut told = Vec::new();
        for _ in 0..connections {
            told.push(names.resolve_dns("localhost").await.unwrap());
        }
        told
    }

    #[derive(Debug, Clone)]
    struct Fixed(&'static [&'static str]);

    impl ResolveDns for Fixed {
        fn resolve_dns<'a>(&'a self, _: &'a str) -> DnsFuture<'a> {
            DnsFuture::ready(Ok(parsed(self.0)))
        }
    }

    fn parsed(addresses: &[&str]) -> Vec<IpAddr> {
        addresses.iter().map(|address| address.parse().unwrap()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn every_connection_begins_with_the_family_that_the_system_put_first() {
        const V4: [&str; 3] = ["10.0.0.1", "10.0.0.2", "10.0.0.3"];
        const V6: [&str; 2] = ["fd00::1", "fd00::2"];
        let expected = [
            [V4[0], V4[1], V4[2], V6[0], V6[1]],
            [V4[1], V4[2], V4[0], V6[1], V6[0]],
            [V4[2], V4[0], V4[1], V6[0], V6[1]],
        ];
        let expected = expected.map(|addresses| parsed(&addresses));
        assert_eq!(told(3, &[V4[0], V4[1], V4[2], V6[0], V6[1]]).await, expected);
        assert_eq!(told(3, &[V4[0], V6[0], V4[1], V6[1], V4[2]]).await, expected, "mixed");
        let expected = [[V6[0], V6[1], V4[0]], [V6[1], V6[0], V4[0]]].map(|addresses| parsed(&addresses));
        assert_eq!(told(2, &[V6[0], V4[0], V6[1]]).await, expected, "IPv6 first");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_without_addresses_is_an_answer() {
        assert_eq!(told(2, &[]).await, vec![Vec::<IpAddr>::new(); 2]);
    }
}
