//! Telling the supervisor (sd_notify(3)).

use std::env;
use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use keelson_model::init::SIGN_OF_LIFE_VARIABLE;

/// How often the supervisor wants a sign of life.
pub(crate) fn sign_of_life_interval() -> Option<Duration> {
    keelson_model::init::sign_of_life_interval(env::var(SIGN_OF_LIFE_VARIABLE).ok().as_deref())
}

/// The supervisor's socket; absent when nobody supervises.
#[derive(Debug)]
pub(crate) struct Notifier {
    address: Option<OsString>,
}

impl Notifier {
    /// From `NOTIFY_SOCKET`.
    pub(crate) fn from_environment() -> Self {
        Self {
            address: env::var_os("NOTIFY_SOCKET").filter(|address| !address.is_empty()),
        }
    }

    /// Sends assignments, one a line. A supervisor that does not listen is not this process's
    /// problem, so it is only logged.
    pub(crate) fn send(&self, state: &str) {
        let Some(address) = &self.address else { return };
        if let Err(error) = Self::try_send(address.as_bytes(), state) {
            tracing::warn!(%error, socket = ?address, "cannot notify the supervisor");
        }
    }

    fn try_send(address: &[u8], state: &str) -> io::Result<()> {
        // A leading @ means the abstract name space.
        let address = match address.strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(address))?,
        };
        let socket = UnixDatagram::unbound()?;
        // PID 1 must never be waited for.
        socket.set_nonblocking(true)?;
        socket.send_to_addr(state.as_bytes(), &address)?;
        Ok(())
    }
}
