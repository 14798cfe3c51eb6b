//! Events out of NATS JetStream, through one durable consumer that all nodes share.
//!
//! Owns: the connection, the consumer, and where refused messages go. Never: makes or changes a stream, or settles a
//! message by itself.
//!
//! NATS is asked for what is there each time, and nothing is fetched ahead: a node that dies takes the messages of its
//! last question with it, and they come again when the consumer's `ack_wait` has passed.
mod consumer;
mod message;
mod trouble;

use std::path::PathBuf;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::{self, Context};
use async_nats::{Client, ConnectOptions, Event, ServerAddr};
use futures::StreamExt as _;
use futures::future::BoxFuture;
use kapell_event_source::{EventSource, Message, SourceError};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

use trouble::{misplaced, unavailable};

/// How NATS is reached, and what of it is taken.
#[derive(Clone, Debug)]
pub struct NatsOptions {
    /// `nats://HOST:PORT` or `tls://HOST:PORT` of some servers of the NATS cluster.
    pub servers: Vec<String>,
    /// The stream; it must be there.
    pub stream: String,
    /// The durable pull consumer; made when it is not there, else taken as it is.
    pub consumer: String,
    /// Only messages of this subject, if the consumer is made; it may hold wildcards. `None`: all of the stream.
    pub subject: Option<String>,
    /// Where refused messages go, with the reason in a header; some stream must take it. `None`: the reason is logged,
    /// and the message stays in its stream as long as that keeps it.
    pub refused: Option<String>,
    /// File with a user's credentials, as NATS's tools make it.
    pub credentials: Option<PathBuf>,
    /// Certificate of the authority that signs for the servers (PEM).
    pub ca: Option<PathBuf>,
}

impl NatsOptions {
    /// The stream `stream` of the NATS cluster at `servers`, all of it, for the consumer `kapell`.
    #[must_use]
    pub fn new(servers: Vec<String>, stream: &str) -> NatsOptions {
        NatsOptions {
            servers,
            stream: stream.to_owned(),
            consumer: "kapell".to_owned(),
            subject: None,
            refused: None,
            credentials: None,
            ca: None,
        }
    }
}

/// Longest time for an answer of NATS.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// See the crate.
pub struct NatsSource {
    name: String,
    options: NatsOptions,
    client: Client,
    context: Context,
    /// As long as it works.
    consumer: Mutex<Option<PullConsumer>>,
}

impl NatsSource {
    /// Connects, and looks whether stream and consumer can be used. NATS may be away: it is then looked for while
    /// messages are taken. To be called in the runtime that is to run the connection.
    ///
    /// # Errors
    /// `Misplaced`: an address or a file makes no sense, the stream is not there, or its consumer does not wait to be
    /// told what became of a message.
    pub async fn open(options: NatsOptions) -> Result<NatsSource, SourceError> {
        let mut connect = ConnectOptions::new()
            .name("kapell")
            .retry_on_initial_connect()
            .connection_timeout(ANSWER_WITHIN)
            .request_timeout(Some(ANSWER_WITHIN))
            .event_callback(tell);
        if let Some(file) = &options.credentials {
            let read = connect.credentials_file(file).await;
            connect = read.map_err(|error| misplaced(format!("{}: {error}", file.display())))?;
        }
        if let Some(ca) = &options.ca {
            connect = connect.add_root_certificates(ca.clone());
        }
        let servers = options.servers.iter().map(|server| {
            server.parse::<ServerAddr>().map_err(|error| misplaced(format!("`{}`: {error}", public(server))))
        });
        let servers = servers.collect::<Result<Vec<_>, _>>()?;
        let places: Vec<&str> = options.servers.iter().map(|server| public(server)).collect();
        let name = format!("{} at {}", options.stream, places.join(", "));
        let client = connect.connect(servers).await.map_err(|error| misplaced(error.to_string()))?;
        let source = NatsSource {
            name,
            context: jetstream::new(client.clone()),
            client,
            options,
            consumer: Mutex::new(None),
        };
        match source.consumer().await {
            Ok(consumer) => *source.consumer.lock().await = Some(consumer),
            Err(error @ SourceError::Unavailable { .. }) => {
                tracing::warn!(source = source.name, %error, "NATS is away; it is looked for from now on");
            }
            Err(error @ SourceError::Misplaced { .. }) => return Err(error),
        }
        Ok(source)
    }

    async fn consumer(&self) -> Result<PullConsumer, SourceError> {
        let found = tokio::time::timeout(ANSWER_WITHIN, consumer::find(&self.context, &self.options)).await;
        found.unwrap_or_else(|_| Err(unavailable(format!("NATS did not answer for {ANSWER_WITHIN:?}"))))
    }

    async fn taken(&self, most: usize, patience: Duration) -> Result<Vec<Message>, SourceError> {
        if self.client.connection_state() != State::Connected {
            return Err(unavailable("there is no connection to NATS".to_owned()));
        }
        let mut kept = self.consumer.lock().await;
        let consumer = match kept.take() {
            Some(consumer) => consumer,
            None => self.consumer().await?,
        };
        let mut found = self.asked(&consumer, Ask::AtOnce(most)).await?;
        if found.is_empty() {
            found = self.asked(&consumer, Ask::Next(patience)).await?;
        }
        *kept = Some(consumer);
        Ok(found)
    }

    async fn asked(&self, consumer: &PullConsumer, ask: Ask) -> Result<Vec<Message>, SourceError> {
        // Without a limit at NATS: with one it would wait for more than there is.
        let batch = match ask {
            Ask::AtOnce(most) => consumer.fetch().max_messages(most).messages().await,
            Ask::Next(patience) => consumer.batch().max_messages(1).expires(patience).messages().await,
        };
        let mut batch = batch.map_err(|error| unavailable(error.to_string()))?;
        let patience = if let Ask::Next(patience) = ask { patience } else { Duration::ZERO };
        let until = Instant::now() + ANSWER_WITHIN + patience;
        let mut found = Vec::new();
        loop {
            match timeout_at(until, batch.next()).await {
                Ok(Some(Ok(message))) => found.push(message::of(message, self)),
                Ok(None) => return Ok(found),
                // What has come is good.
                Ok(Some(Err(_))) | Err(_) if !found.is_empty() => return Ok(found),
                Ok(Some(Err(error))) => return Err(unavailable(error.to_string())),
                Err(_) => return Err(unavailable(format!("NATS did not answer for {ANSWER_WITHIN:?}"))),
            }
        }
    }
}

/// What NATS is asked for.
#[derive(Clone, Copy)]
enum Ask {
    /// What is there, at most so many.
    AtOnce(usize),
    /// One, as soon as there is one.
    Next(Duration),
}

impl EventSource for NatsSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn take(&self, most: usize, patience: Duration) -> BoxFuture<'_, Result<Vec<Message>, SourceError>> {
        Box::pin(self.taken(most, patience))
    }
}

/// The address without a user and password before it.
fn public(server: &str) -> &str {
    server.rsplit_once('@').map_or(server, |(_, address)| address)
}

async fn tell(event: Event) {
    if event == Event::Connected {
        tracing::info!("connected to NATS");
    } else {
        tracing::warn!("NATS: {event}");
    }
}
