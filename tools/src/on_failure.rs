//! The on-failure queue of the stream's mapping, with the redrive function behind it.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use dsql_view_support::lambda::{End, Invocation, Lambda};
use dsql_view_support::queues;
use dsql_view_support::runtime_api::Outcome;
use serde_json::{Value, json};

/// A queue.
pub struct OnFailure {
    name: &'static str,
    function: Lambda<Message>,
    waiting: VecDeque<Message>,
    /// How many messages have been delivered.
    pub deliveries: u64,
}

/// A message of the queue.
#[derive(Debug)]
pub struct Message {
    /// Lambda's message about a batch that it has given up.
    pub body: Value,
    /// How often it was delivered.
    pub receives: u32,
}

impl OnFailure {
    /// An empty queue of this name, whose messages go to this function.
    pub fn new(name: &'static str, function: Lambda<Message>) -> Self {
        Self { name, function, waiting: VecDeque::new(), deliveries: 0 }
    }

    /// Puts a message into the queue.
    pub fn tell(&mut self, body: Value) {
        self.again(Message { body, receives: 0 });
    }

    /// Puts a message back into the queue.
    pub fn again(&mut self, message: Message) {
        self.waiting.push_back(message);
    }

    /// Whether no message waits, and no message is being worked on.
    pub fn is_through(&self) -> bool {
        self.waiting.is_empty() && self.is_idle()
    }

    /// Whether no message is being worked on.
    pub fn is_idle(&self) -> bool {
        self.function.is_idle()
    }

    /// How many processes of the function have been started.
    pub fn processes(&self) -> u64 {
        self.function.started()
    }

    /// Invokes the function for messages that wait, as far as it has room. `killed_after` says when an invocation is
    /// killed.
    ///
    /// # Errors
    /// A process cannot be started.
    pub fn start(
        &mut self,
        timeout: Duration,
        mut killed_after: impl FnMut(&Message) -> Option<Duration>,
    ) -> io::Result<()> {
        while self.function.has_room()
            && let Some(mut message) = self.waiting.pop_front()
        {
            self.deliveries += 1;
            message.receives += 1;
            let id = format!("message-{}", self.deliveries);
            let event = queues::event(self.name, &id, &message.body.to_string(), message.receives).to_string().into();
            let killed_after = killed_after(&message);
            self.function.invoke(message, Invocation { event, timeout, killed_after })?;
        }
        Ok(())
    }

    /// Waits for the next end of an invocation. `None` if no invocation runs.
    pub async fn next_end(&mut self) -> Option<(Message, End)> {
        self.function.next_end().await
    }
}

/// Whether the function is done with its message.
pub fn is_done(end: &End) -> bool {
    end.outcome == Some(Outcome::Response(json!({ "batchItemFailures": [] })))
}
