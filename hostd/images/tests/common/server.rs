//! A registry that follows the test's instructions: it breaks connections, lies, or never ends.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hostd_images::Digest;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// One request as the server saw it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) head: String,
    /// The part of the request's body that was read.
    pub(crate) body: Vec<u8>,
    /// How often this method and path were requested before.
    pub(crate) before: usize,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// The server's action.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// The claimed length. `None`: the true one.
    pub(crate) claimed: Option<u64>,
    /// Bytes after which the connection is broken.
    pub(crate) cut: Option<usize>,
    /// Bytes after which nothing more is sent.
    pub(crate) stall: Option<usize>,
    /// Whether the body is repeated for ever, without a length.
    pub(crate) endless: bool,
    /// The time between two bytes after the stall.
    pub(crate) trickle: Option<Duration>,
}

impl Reply {
    pub(crate) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            body: body.into(),
            ..Self::default()
        }
    }

    pub(crate) fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}

/// How much of a request's body the server reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Take {
    /// All, before it answers.
    All,
    /// Nothing: it answers at once.
    Nothing,
    /// This many bytes, which the handler still sees; then the connection breaks.
    Cut(usize),
    /// This many bytes; then nothing happens any more.
    Stall(usize),
}

type Taker = dyn Fn(&Seen) -> Take + Send + Sync;

type Handler = dyn Fn(&Seen) -> Reply + Send + Sync;

/// The server; it ends with the test's runtime.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    pub(crate) async fn start(handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_taking(|_| Take::All, handler).await
    }

    /// A server that does not read every request's body.
    pub(crate) async fn start_taking(
        taker: impl Fn(&Seen) -> Take + Send + Sync + 'static,
        handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (log, handler): (_, Arc<Handler>) = (Arc::clone(&seen), Arc::new(handler));
        let taker: Arc<Taker> = Arc::new(taker);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(
                    stream,
                    Arc::clone(&log),
                    Arc::clone(&taker),
                    Arc::clone(&handler),
                ));
            }
        });
        Self { address, seen }
    }

    /// A name in this registry.
    pub(crate) fn name(&self, rest: &str) -> String {
        format!("{}/{rest}", self.address)
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub(crate) fn count(&self, method: &str, part: &str) -> usize {
        let fits = |seen: &&Seen| seen.method == method && seen.path.contains(part);
        self.seen().iter().filter(fits).count()
    }
}

async fn serve(
    mut stream: TcpStream,
    log: Arc<Mutex<Vec<Seen>>>,
    taker: Arc<Taker>,
    handler: Arc<Handler>,
) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
        if head.first() == Some(&0x16) {
            // A TLS record: this server speaks plain HTTP.
            return None;
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut words = head.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut seen = {
        let mut log = log.lock().unwrap();
        let before = log
            .iter()
            .filter(|seen| seen.method == method && seen.path == path)
            .count();
        let seen = Seen {
            method,
            path,
            head,
            body: Vec::new(),
            before,
        };
        log.push(seen.clone());
        seen
    };
    let length: usize = seen.header("content-length").unwrap_or("0").parse().ok()?;
    let take = taker(&seen);
    let wanted = match take {
        Take::All => length,
        Take::Nothing => 0,
        Take::Cut(most) | Take::Stall(most) => length.min(most),
    };
    let mut body = vec![0; wanted];
    stream.read_exact(&mut body).await.ok()?;
    seen.body = body;
    match take {
        Take::All | Take::Nothing => {}
        Take::Cut(_) => {
            handler(&seen);
            return None;
        }
        Take::Stall(_) => {
            handler(&seen);
            tokio::time::sleep(Duration::from_secs(30)).await;
            return None;
        }
    }
    let reply = handler(&seen);
    let mut answer = format!("HTTP/1.1 {} x\r\nConnection: close\r\n", reply.status);
    for (name, value) in &reply.headers {
        answer.push_str(&format!("{name}: {value}\r\n"));
    }
    if !reply.endless {
        let length = reply.claimed.unwrap_or(reply.body.len() as u64);
        answer.push_str(&format!("Content-Length: {length}\r\n"));
    }
    answer.push_str("\r\n");
    stream.write_all(answer.as_bytes()).await.ok()?;
    if seen.method == "HEAD" {
        return Some(());
    }
    let end = reply.cut.or(reply.stall).unwrap_or(reply.body.len());
    stream.write_all(&reply.body[..end]).await.ok()?;
    if reply.endless {
        while stream.write_all(&reply.body).await.is_ok() {}
    }
    if let Some(pause) = reply.trickle {
        for byte in &reply.body[end..] {
            tokio::time::sleep(pause).await;
            stream.write_all(&[*byte]).await.ok()?;
        }
    }
    if reply.stall.is_some() {
        tokio::time::sleep(Duration::from_secs(30)).await;
    }
    if take == Take::Nothing {
        // If it were closed with unread bytes, the connection would be reset, and the answer lost.
        let mut nowhere = tokio::io::sink();
        let rest = tokio::io::copy(&mut stream, &mut nowhere);
        let _ = tokio::time::timeout(Duration::from_secs(10), rest).await;
    }
    Some(())
}

/// An image as a registry has it.
#[derive(Debug, Clone)]
pub(crate) struct Remote {
    pub(crate) manifest: Vec<u8>,
    pub(crate) blobs: HashMap<Digest, Vec<u8>>,
    pub(crate) config: Digest,
    /// Blobs of the layers.
    pub(crate) layers: Vec<Digest>,
}

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";

impl Remote {
    /// A registry that tells the truth about it.
    pub(crate) async fn serve(&self) -> Server {
        let remote = self.clone();
        Server::start(move |seen| remote.answer(seen)).await
    }

    /// From uncompressed layers.
    pub(crate) fn new(layers: &[Vec<u8>]) -> Self {
        let config = super::config(layers, "sh");
        let mut blobs = HashMap::new();
        let mut add = |bytes: Vec<u8>| {
            let digest = Digest::of(&bytes);
            blobs.insert(digest, bytes);
            digest
        };
        let sizes: Vec<(Digest, usize)> = layers
            .iter()
            .map(|layer| {
                let blob = super::gzip(layer);
                let size = blob.len();
                (add(blob), size)
            })
            .collect();
        let size = config.len();
        let config = add(config);
        let mut remote = Self {
            manifest: Vec::new(),
            blobs,
            config,
            layers: sizes.iter().map(|(digest, _)| *digest).collect(),
        };
        remote.manifest = remote.manifest_of(&sizes, size);
        remote
    }

    pub(crate) fn manifest_of(&self, layers: &[(Digest, usize)], config_size: usize) -> Vec<u8> {
        let layers: Vec<_> = layers
            .iter()
            .map(|(digest, size)| {
                json!({
                    "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                    "digest": digest, "size": size,
                })
            })
            .collect();
        json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": self.config, "size": config_size,
            },
            "layers": layers,
        })
        .to_string()
        .into_bytes()
    }

    /// How an honest registry answers.
    pub(crate) fn answer(&self, seen: &Seen) -> Reply {
        if seen.path == "/v2/" {
            return Reply::new(200, "{}");
        }
        if let Some((_, reference)) = seen.path.split_once("/manifests/") {
            let own = Digest::of(&self.manifest).to_string();
            return match reference == "latest" || reference == own {
                true => Reply::new(200, self.manifest.clone()).header("Content-Type", MANIFEST),
                false => unknown(),
            };
        }
        let blob = seen
            .path
            .split_once("/blobs/")
            .and_then(|(_, digest)| self.blobs.get(&digest.parse().ok()?));
        let Some(blob) = blob else {
            return unknown();
        };
        let start = seen.header("range").and_then(|range| {
            range
                .strip_prefix("bytes=")?
                .strip_suffix('-')?
                .parse()
                .ok()
        });
        match start {
            Some(start) => Reply::new(206, &blob[start..]).header(
                "Content-Range",
                format!("bytes {start}-{}/{}", blob.len() - 1, blob.len()),
            ),
            None => Reply::new(200, blob.clone()),
        }
    }

    pub(crate) fn is_layer(&self, seen: &Seen) -> bool {
        self.layers
            .iter()
            .any(|layer| seen.path.ends_with(&layer.to_string()))
    }
}

pub(crate) fn unknown() -> Reply {
    Reply::new(
        404,
        r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#,
    )
}
