//! The addresses behind a server's name: one look-up for all connections that are opened together.
//!
//! Invariant: the family of addresses that the system put first stays first, since it knows which one has a way out.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::client::legacy::connect::dns::Name;
use tokio::time::Instant;
use tower_service::Service;

/// An answer to the question for a name is shared by the connections that are opened together.
const ANSWER_SHARED_FOR: Duration = Duration::from_secs(1);

/// Looks a name up once for all connections that are opened together: each question takes a thread of its own, and its
/// memory.
#[derive(Debug, Clone)]
pub(super) struct Names<R> {
    resolver: R,
    known: Arc<Mutex<HashMap<Name, Known>>>,
}

/// The last answer for a name, and when it came. Who finds it locked waits for the next one.
type Known = Arc<tokio::sync::Mutex<Option<(Instant, Vec<SocketAddr>)>>>;

impl<R> Names<R> {
    pub(super) fn new(resolver: R) -> Self {
        Self { resolver, known: Arc::default() }
    }
}

impl<R> Service<Name> for Names<R>
where
    R: Service<Name, Response: Iterator<Item = SocketAddr>, Error = io::Error, Future: Send> + Clone + Send + 'static,
{
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.resolver.poll_ready(context)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let known =
            Arc::clone(self.known.lock().unwrap_or_else(PoisonError::into_inner).entry(name.clone()).or_default());
        let mut resolver = self.resolver.clone();
        Box::pin(async move {
            let mut known = known.lock().await;
            if let Some((at, addresses)) = &mut *known
                && at.elapsed() < ANSWER_SHARED_FOR
            {
                rotate(addresses);
                return Ok(addresses.clone().into_iter());
            }
            let addresses = by_family(resolver.call(name).await?.collect());
            *known = Some((Instant::now(), addresses.clone()));
            Ok(addresses.into_iter())
        })
    }
}

/// The addresses of the first one's family, and then those of the other, each in their order.
fn by_family(mut addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_ipv6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    addresses.sort_by_key(|address| address.is_ipv6() != first_is_ipv6);
    addresses
}

/// Lets each connection begin with another address, of the same family: hyper tries that of the first one before the
/// other.
fn rotate(addresses: &mut [SocketAddr]) {
    for family in addresses.chunk_by_mut(|a, b| a.is_ipv6() == b.is_ipv6()) {
        family.rotate_left(1);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Answers with two addresses after a moment, and counts the questions; the first one fails.
    #[derive(Clone, Default)]
    struct Slow(Arc<AtomicUsize>);

    impl Service<Name> for Slow {
        type Response = std::array::IntoIter<SocketAddr, 2>;
        type Error = io::Error;
        type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Name) -> Self::Future {
            let count = self.0.fetch_add(1, Ordering::Relaxed);
            Box::pin(async move {
                tokio::time::sleep(Duration::from_millis(10)).await;
                if count == 0 { Err(io::Error::other("no answer")) } else { Ok(addresses().into_iter()) }
            })
        }
    }

    fn addresses() -> [SocketAddr; 2] {
        [([127, 0, 0, 1], 1).into(), ([127, 0, 0, 2], 1).into()]
    }

    #[tokio::test(start_paused = true)]
    async fn connections_that_are_opened_together_ask_once_and_share_the_addresses() {
        let resolver = Slow::default();
        let mut names = Names::new(resolver.clone());
        let name: Name = "dynamodb.us-east-1.amazonaws.com".parse().unwrap();
        assert!(names.call(name.clone()).await.is_err());
        let asked = futures_util::future::join_all((0..50).map(|_| names.call(name.clone()))).await;
        let firsts: Vec<SocketAddr> = asked.into_iter().map(|found| found.unwrap().next().unwrap()).collect();
        for address in addresses() {
            assert_eq!(firsts.iter().filter(|first| **first == address).count(), 25);
        }
        assert_eq!(resolver.0.load(Ordering::Relaxed), 2);
        tokio::time::advance(ANSWER_SHARED_FOR).await;
        names.call(name).await.unwrap();
        names.call("localhost".parse().unwrap()).await.unwrap();
        assert_eq!(resolver.0.load(Ordering::Relaxed), 4);
    }

    /// The addresses that so many connections are told, one after the other, where this is the system's answer.
    async fn told(connections: usize, answer: &'static [&'static str]) -> Vec<Vec<SocketAddr>> {
        let mut names = Names::new(Fixed(answer));
        let mut told = Vec::new();
        for _ in 0..connections {
            told.push(names.call("localhost".parse().unwrap()).await.unwrap().collect());
        }
        told
    }

    #[derive(Clone)]
    struct Fixed(&'static [&'static str]);

    impl Service<Name> for Fixed {
        type Response = std::vec::IntoIter<SocketAddr>;
        type Error = io::Error;
        type Future = std::future::Ready<io::Result<Self::Response>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Name) -> Self::Future {
            std::future::ready(Ok(parsed(self.0).into_iter()))
        }
    }

    fn parsed(addresses: &[&str]) -> Vec<SocketAddr> {
        addresses.iter().map(|address| address.parse().unwrap()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn every_connection_begins_with_the_family_that_the_system_put_first() {
        const V4: [&str; 3] = ["10.0.0.1:0", "10.0.0.2:0", "10.0.0.3:0"];
        const V6: [&str; 2] = ["[fd00::1]:0", "[fd00::2]:0"];
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
        assert_eq!(told(2, &[]).await, [vec![], vec![]]);
    }
}
