//! Brings a resolver to the desired state: first sends everything, then changes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use keelson_resolver_protocol::{Ports, Reply, Request, Sockets};
use tokio::time::{Instant, sleep_until, timeout};

use super::client::{Client, ClientError, PATIENCE};
use super::sockets::ports as ports_of;
use super::state::{Inner, NamesError};

/// A connected resolver, and what it was sent.
pub(super) struct Session<'a> {
    inner: &'a Arc<Inner>,
    client: Client,
    /// Containers whose sockets it has.
    held: BTreeMap<String, Ports>,
    /// Unanswered requests: their containers, and when they were sent.
    asked: VecDeque<(u64, Option<String>, Instant)>,
}

impl<'a> Session<'a> {
    /// Finds or starts a resolver, and sends everything. `None`: none runs, and none is needed.
    pub(super) async fn begin(inner: &'a Arc<Inner>) -> Result<Option<Self>, ClientError> {
        let (client, held) = match find(inner).await? {
            Some(found) => found,
            None if inner.lock().wanted.is_empty() => return Ok(None),
            None => {
                let mut client = inner.program.start()?;
                let held = client.hello().await?;
                (client, held)
            }
        };
        let mut session = Self {
            inner,
            client,
            held,
            asked: VecDeque::new(),
        };
        session.ask(&Request::Begin, None, None).await?;
        let all: Vec<String> = {
            let mut state = inner.lock();
            state.changed.clear();
            state.wanted.keys().cloned().collect()
        };
        for id in all {
            session.say(&id).await?;
        }
        session.ask(&Request::End, None, None).await?;
        inner.lock().process = session.client.process();
        Ok(Some(session))
    }

    async fn ask(
        &mut self,
        request: &Request,
        container: Option<&str>,
        sockets: Option<&Sockets>,
    ) -> Result<(), ClientError> {
        let number = self.client.ask(request, sockets).await?;
        let container = container.map(str::to_owned);
        self.asked.push_back((number, container, Instant::now()));
        // Receive answers in between, so that the two sides do not wait for each other with full
        // buffers.
        while self.asked.len() > 64 {
            let reply = timeout(PATIENCE, self.client.next()).await;
            let (number, reply) = reply.unwrap_or(Err(ClientError::Silent))?;
            self.take(number, reply)?;
        }
        Ok(())
    }

    /// Sends the desired state of a container.
    async fn say(&mut self, id: &str) -> Result<(), ClientError> {
        let wanted = {
            let mut state = self.inner.lock();
            state
                .wanted
                .get_mut(id)
                .map(|wanted| (wanted.record.clone(), wanted.sockets.take(), wanted.ports))
        };
        let Some((container, sockets, ports)) = wanted else {
            let container = id.to_owned();
            self.held.remove(id);
            return self
                .ask(&Request::Remove { container }, Some(id), None)
                .await;
        };
        let sockets = match sockets {
            None if !self.held.contains_key(id) => match self.inner.opened(id, ports).await {
                Ok(sockets) => Some(sockets),
                Err(error) => {
                    // Its namespace may be gone. Then the container ends and is removed.
                    self.refuse(id, format!("its sockets can't be opened: {error}"));
                    return Ok(());
                }
            },
            sockets => sockets,
        };
        let mut kinds = Vec::new();
        if let Some(sockets) = &sockets {
            kinds = sockets.descriptors().0;
            if let Ok(ports) = ports_of(sockets) {
                self.held.insert(id.to_owned(), ports);
            }
        }
        if let Some(wanted) = self.inner.lock().wanted.get_mut(id) {
            wanted.ports = self.held.get(id).copied();
        }
        let request = Request::Set {
            container,
            sockets: kinds,
        };
        match self.ask(&request, Some(id), sockets.as_ref()).await {
            // The others must not suffer from it.
            Err(ClientError::Request(error)) => {
                self.held.remove(id);
                self.refuse(id, error.to_string());
                Ok(())
            }
            other => other,
        }
    }

    /// Wakes the callers that wait for a container's state to be applied.
    fn tell(&self, id: &str, result: Result<(), NamesError>) {
        let waiting = self.inner.lock().waiting.remove(id);
        for waiting in waiting.into_iter().flatten() {
            // The caller may have stopped waiting.
            let _ = waiting.send(result.clone());
        }
    }

    fn refuse(&self, id: &str, reason: String) {
        tracing::warn!(container = id, reason, "not served by the resolver");
        let container = id.to_owned();
        self.tell(id, Err(NamesError::Refused { container, reason }));
    }

    /// Handles the answer to the oldest open request.
    fn take(&mut self, number: u64, reply: Reply) -> Result<(), ClientError> {
        let container = match self.asked.pop_front() {
            Some((expected, container, _)) if expected == number => container,
            _ => return Err(ClientError::Unexpected(Box::new(reply))),
        };
        let Some(id) = container else {
            return match reply {
                Reply::Done => Ok(()),
                other => Err(ClientError::Unexpected(Box::new(other))),
            };
        };
        // Later changes are sent and awaited separately.
        let later = self.inner.lock().changed.contains(&id)
            || self
                .asked
                .iter()
                .any(|(_, other, _)| other.as_deref() == Some(&id));
        match reply {
            Reply::Done if later => {}
            Reply::Done => self.tell(&id, Ok(())),
            Reply::Failed { reason } => {
                // The resolver has closed the sockets, as it does when a container has ended. Open
                // new ones next time.
                self.held.remove(&id);
                self.refuse(&id, reason);
            }
            other => return Err(ClientError::Unexpected(Box::new(other))),
        }
        Ok(())
    }

    /// Sends changes until the connection fails.
    pub(super) async fn run(mut self) -> ClientError {
        loop {
            let changed = {
                let mut state = self.inner.lock();
                if state.closed && self.asked.is_empty() {
                    return ClientError::Ended;
                }
                std::mem::take(&mut state.changed)
            };
            for id in changed {
                if let Err(error) = self.say(&id).await {
                    return self.fail(error);
                }
            }
            let patience = self.asked.front().map(|(_, _, since)| *since + PATIENCE);
            let step = tokio::select! {
                () = self.inner.wake.notified() => Ok(()),
                reply = self.client.next() => match reply {
                    Ok((number, reply)) => self.take(number, reply),
                    Err(error) => Err(error),
                },
                () = until(patience) => Err(ClientError::Silent),
            };
            if let Err(error) = step {
                return self.fail(error);
            }
        }
    }

    /// A resolver that hangs must not keep the sockets, because containers would wait for its
    /// answers.
    fn fail(&self, error: ClientError) -> ClientError {
        if !matches!(error, ClientError::Ended) {
            self.inner.program.kill(self.client.process());
        }
        error
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Connects to a running resolver, and returns the containers whose sockets it has. A resolver of
/// another release hands over its sockets and ends. Then a new one is started; the desired state
/// contains the sockets for it.
async fn find(
    inner: &Arc<Inner>,
) -> Result<Option<(Client, BTreeMap<String, Ports>)>, ClientError> {
    let Some(mut client) = inner.program.find()? else {
        return Ok(None);
    };
    let process = client.process();
    let current = process.is_some_and(|process| inner.program.is_current(process));
    match client.hello().await {
        Ok(held) if current => return Ok(Some((client, held))),
        Ok(_) => match client.hand_over().await {
            Ok(handed) => {
                tracing::info!(
                    containers = handed.len(),
                    "sockets taken over from another resolver"
                );
                let mut state = inner.lock();
                for (id, sockets) in handed {
                    if let Some(wanted) = state.wanted.get_mut(&id) {
                        wanted.sockets.get_or_insert(sockets);
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "a resolver of another release keeps its sockets"),
        },
        Err(error) => tracing::warn!(%error, "a resolver is of no use"),
    }
    // For containers without such sockets, new ones are opened.
    inner.program.kill(process);
    Ok(None)
}
