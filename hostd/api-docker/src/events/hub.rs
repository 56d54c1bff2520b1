//! Brings the events of all stores into one order, and keeps the last ones.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use hostd_containers::ContainerEvent;
use hostd_images::ImageEvent;
use hostd_networks::NetworkEvent;
use hostd_volumes::VolumeEvent;
use tokio::sync::broadcast::{
    self,
    error::{RecvError, TryRecvError},
};

use super::Event;

/// How many events are kept for clients that ask for the past.
const KEPT: usize = 256;
/// Most bytes of them that are kept.
const KEPT_BYTES: usize = 1 << 20;

/// Collects events of all stores for all clients.
#[derive(Clone)]
pub(crate) struct EventHub {
    sender: broadcast::Sender<Arc<Event>>,
    past: Arc<Mutex<Past>>,
}

/// The last events, bounded by number and bytes.
#[derive(Default)]
struct Past {
    events: VecDeque<Arc<Event>>,
    bytes: usize,
}

impl Past {
    fn push(&mut self, event: Arc<Event>) {
        self.bytes += event.size();
        self.events.push_back(event);
        while self.events.len() > KEPT || self.bytes > KEPT_BYTES {
            let Some(oldest) = self.events.pop_front() else {
                return;
            };
            self.bytes -= oldest.size();
        }
    }
}

/// The events of one store.
struct Source<T> {
    receiver: broadcast::Receiver<T>,
    /// `None`: no client hears of it.
    convert: fn(T) -> Option<Event>,
    open: bool,
}

impl<T: Clone> Source<T> {
    fn new(receiver: broadcast::Receiver<T>, convert: fn(T) -> Option<Event>) -> Self {
        Self {
            receiver,
            convert,
            open: true,
        }
    }

    /// Waits for an event. `None` if clients don't hear of it, or if there will be none.
    async fn next(&mut self) -> Option<Event> {
        match self.receiver.recv().await {
            Ok(event) => (self.convert)(event),
            Err(RecvError::Lagged(count)) => {
                tracing::warn!(count, "events were lost");
                None
            }
            Err(RecvError::Closed) => {
                self.open = false;
                None
            }
        }
    }

    /// Adds what has been reported until now.
    fn take_all(&mut self, events: &mut Vec<Event>) {
        loop {
            match self.receiver.try_recv() {
                Ok(event) => events.extend((self.convert)(event)),
                Err(TryRecvError::Lagged(count)) => tracing::warn!(count, "events were lost"),
                Err(TryRecvError::Empty | TryRecvError::Closed) => return,
            }
        }
    }
}

impl EventHub {
    pub(crate) fn start(
        containers: broadcast::Receiver<ContainerEvent>,
        images: broadcast::Receiver<ImageEvent>,
        volumes: broadcast::Receiver<VolumeEvent>,
        networks: broadcast::Receiver<NetworkEvent>,
    ) -> Self {
        let (sender, _) = broadcast::channel(KEPT);
        let past = Arc::default();
        let hub = Self { sender, past };
        let mut containers = Source::new(containers, |event: ContainerEvent| {
            (event.scope == crate::SCOPE).then(|| Event::from(event))
        });
        let mut images = Source::new(images, |event: ImageEvent| Some(event.into()));
        let mut volumes = Source::new(volumes, |event: VolumeEvent| Some(event.into()));
        let mut networks = Source::new(networks, |event: NetworkEvent| Some(event.into()));
        let collector = hub.clone();
        tokio::spawn(async move {
            loop {
                let first = tokio::select! {
                    event = containers.next(), if containers.open => event,
                    event = images.next(), if images.open => event,
                    event = volumes.next(), if volumes.open => event,
                    event = networks.next(), if networks.open => event,
                    else => break,
                };
                let mut events = Vec::from_iter(first);
                containers.take_all(&mut events);
                images.take_all(&mut events);
                volumes.take_all(&mut events);
                networks.take_all(&mut events);
                // What happened first in one store may be read last. A client must not hear of the
                // use of a volume before it hears of the container.
                events.sort_by_key(|event| event.time_nano);
                collector.report(events);
            }
        });
        hub
    }

    fn report(&self, events: Vec<Event>) {
        // Both under the lock, so that no client sees an event twice or misses it.
        let mut past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        for event in events.into_iter().map(Arc::new) {
            past.push(Arc::clone(&event));
            // Fails only when no client listens.
            let _ = self.sender.send(event);
        }
    }

    /// How many clients listen now.
    pub(crate) fn listeners(&self) -> usize {
        self.sender.receiver_count()
    }

    /// The past, and everything after it.
    pub(super) fn subscribe(&self) -> (Vec<Arc<Event>>, broadcast::Receiver<Arc<Event>>) {
        let past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        (
            past.events.iter().cloned().collect(),
            self.sender.subscribe(),
        )
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use hostd_images::ImageAction;
    use hostd_volumes::VolumeAction;

    use super::*;

    #[tokio::test]
    async fn events_of_several_stores_come_in_the_order_of_their_times() {
        let (images, of_images) = broadcast::channel(8);
        let (volumes, of_volumes) = broadcast::channel(8);
        let (_, of_containers) = broadcast::channel(8);
        let (_, of_networks) = broadcast::channel(8);
        let volume = |time| VolumeEvent {
            action: VolumeAction::Create,
            name: "data".to_owned(),
            driver: "local".to_owned(),
            time,
        };
        for time in [2, 4] {
            volumes.send(volume(time)).unwrap();
        }
        for time in [1, 3] {
            let event = ImageEvent {
                action: ImageAction::Pull,
                id: None,
                name: "busybox".to_owned(),
                reclaimed: None,
                labels: Vec::new(),
                time,
            };
            images.send(event).unwrap();
        }
        let hub = EventHub::start(of_containers, of_images, of_volumes, of_networks);
        let (past, mut more) = hub.subscribe();
        let mut times: Vec<i64> = past.iter().map(|event| event.time_nano).collect();
        while times.len() < 4 {
            times.push(more.recv().await.unwrap().time_nano);
        }
        assert_eq!(times, [1, 2, 3, 4]);
    }

    #[test]
    fn the_past_is_bounded_in_bytes() {
        let mut past = Past::default();
        for number in 0..1000_i64 {
            let large = ("label".to_owned(), "x".repeat(16 << 10));
            let event = Event::new(
                "container",
                "die".into(),
                "a".into(),
                [large].into(),
                number,
            );
            past.push(Arc::new(event));
            assert!(past.bytes <= KEPT_BYTES);
        }
        assert!((50..KEPT).contains(&past.events.len()));
        assert_eq!(past.events.back().map(|event| event.time_nano), Some(999));
        for number in 0..1000_i64 {
            let event = Event::new(
                "container",
                "die".into(),
                "a".into(),
                BTreeMap::new(),
                number,
            );
            past.push(Arc::new(event));
        }
        assert_eq!(past.events.len(), KEPT);
    }
}
