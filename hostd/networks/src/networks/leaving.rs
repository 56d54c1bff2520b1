//! The end of a run, in its networks.

use std::sync::Arc;

use tokio::sync::watch;

use super::joining::{Departure, Seat};
use super::{Inner, Networks};
use crate::store::Withdrawn;
use crate::types::{Endpoint, Network};

impl Networks {
    /// Removes a container from its networks. When this returns, nobody sees it there any more, and
    /// its events were sent; the rest happens in the background. The returned future waits until
    /// its filter elements, ports and names are removed, so that another container can have them.
    /// Its addresses become free a moment later, when its links are gone.
    pub fn leave(&self, container: &str) -> impl Future<Output = ()> + Send + 'static {
        if let Some(withdrawn) = self.0.store.withdraw(container) {
            let seat = self.0.seats.of(container);
            let departure = seat.leaves();
            let (inner, container) = (Arc::clone(&self.0), container.to_owned());
            tokio::spawn(async move { inner.leave(&container, seat, withdrawn, departure).await });
        }
        let seat = self.0.seats.get(container);
        async move {
            if let Some(seat) = seat {
                seat.wait_for(Departure::Quiet).await;
            }
        }
    }

    /// Called when the engine ends. Waits until all ended containers have left, and for the end of
    /// the resolver if it serves no container.
    pub async fn close(&self) {
        for container in self.0.store.leaving() {
            if let Some(seat) = self.0.seats.get(&container) {
                seat.wait_for(Departure::Done).await;
            }
        }
        self.0.names.close().await;
    }
}

impl Inner {
    /// Every step is tried, even if the previous one failed. Remains are repaired or swept later.
    async fn leave(
        self: &Arc<Self>,
        container: &str,
        seat: Arc<Seat>,
        withdrawn: Withdrawn,
        departure: watch::Sender<Departure>,
    ) {
        let turn = seat.turn.lock().await;
        let connections: Vec<(Arc<Network>, Endpoint)> = withdrawn.connections;
        if let Err(error) = self.unfilter(&connections, &withdrawn.bindings).await {
            tracing::warn!(container, %error, "packet filter of a container not cleaned");
        }
        self.ports.release(container);
        if let Err(error) = self.names.remove(container).await {
            tracing::warn!(container, %error, "names of a container not removed");
        }
        departure.send_replace(Departure::Quiet);
        for (network, endpoint) in &connections {
            // Links without an end on the host vanish with the namespace.
            let detached = match self.parts().await {
                Ok(parts) => parts.kernel.detach(network, endpoint, None).await,
                Err(error) => {
                    tracing::warn!(container, %error, "link of a container not removed");
                    continue;
                }
            };
            if let Err(error) = detached {
                tracing::warn!(container, %error, "link of a container not removed");
            }
        }
        self.store.finish(container);
        seat.set_pid(0);
        departure.send_replace(Departure::Done);
        drop(turn);
        drop(seat);
        self.seats.forget(container);
    }
}
