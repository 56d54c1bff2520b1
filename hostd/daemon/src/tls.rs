//! TLS on TCP listeners: the server's present certificate, and which clients may connect.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::{Context, Result};
use hostd_api_host::addresses::ServerNames;
use hostd_api_host::clients::Clients;
use hostd_api_host::pki::Pki;
use jiff::Timestamp;
use rustls::ServerConfig;
use tokio_rustls::TlsAcceptor;

/// How often names, addresses and expiry are checked. DHCP adds an address some time after the start,
/// and a client may want to use it at once.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// The server's side of TLS. Clones share it.
#[derive(Clone)]
pub(crate) struct Tls {
    pki: Arc<Pki>,
    current: Arc<RwLock<Arc<ServerConfig>>>,
}

impl Tls {
    /// Makes the server's certificate when it is missing or outdated.
    pub(crate) fn new(pki: Arc<Pki>) -> Result<Self> {
        pki.ensure_server(&ServerNames::of_this_machine(), Timestamp::now())?;
        let current = pki.server_config().context("TLS can't be set up")?;
        Ok(Self {
            pki,
            current: Arc::new(RwLock::new(current)),
        })
    }

    /// An acceptor with the present certificate.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        TlsAcceptor::from(current.clone())
    }

    /// The list of client certificates.
    pub(crate) fn clients(&self) -> &Arc<Clients> {
        self.pki.clients()
    }

    /// Renews the certificate when names, addresses or expiry require it, as long as the daemon runs.
    pub(crate) async fn keep_current(self) {
        loop {
            tokio::time::sleep(CHECK_INTERVAL).await;
            let tls = self.clone();
            match keelson_blocking::blocking(move || tls.refresh()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::error!("the server's certificate can't be renewed: {error:#}");
                }
                Err(error) => tracing::error!(%error, "the server's certificate can't be checked"),
            }
        }
    }

    fn refresh(&self) -> Result<()> {
        let names = ServerNames::of_this_machine();
        if self.pki.ensure_server(&names, Timestamp::now())? {
            let config = self.pki.server_config()?;
            *self.current.write().unwrap_or_else(PoisonError::into_inner) = config;
            tracing::info!(?names, "the server's certificate was renewed");
        }
        Ok(())
    }
}
