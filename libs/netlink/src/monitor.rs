//! Reports of changes.

use futures::StreamExt;
use futures::channel::mpsc::UnboundedReceiver;
use rtnetlink::packet_core::NetlinkMessage;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::sys::SocketAddr;

/// Reports that links, addresses or routes changed. The caller then reads the state again, so a
/// report that is lost does no harm as long as a later one arrives.
pub struct Monitor {
    pub(crate) messages: UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>,
}

impl Monitor {
    /// Waits for the next change; `false` when the connection broke.
    pub async fn changed(&mut self) -> bool {
        let first = self.messages.next().await.is_some();
        // A burst of changes is one change.
        while let Ok(message) = self.messages.try_recv() {
            drop(message);
        }
        first
    }
}
