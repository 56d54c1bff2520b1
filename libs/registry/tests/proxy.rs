//! HTTPS through a proxy, which sees only the name of the registry.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use keelson_registry::{Client, Deadlines, Proxies, RegistryOptions, Repository, RepositoryAccess};
use rustls::crypto::ring;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// A name that only the proxy can resolve.
const NAME: &str = "registry.invalid:5000";

async fn head(stream: &mut (impl AsyncReadExt + Unpin)) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    String::from_utf8(head).ok()
}

/// A registry with TLS whose repositories have one manifest. Also returns its certificate.
async fn registry() -> (SocketAddr, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let names = vec!["registry.invalid".to_owned()];
    let certificate = rcgen::CertificateParams::new(names)
        .unwrap()
        .self_signed(&key)
        .unwrap();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap(),
        )
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else {
                continue;
            };
            tokio::spawn(async move {
                while head(&mut stream).await.is_some() {
                    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
                    stream.write_all(answer).await.unwrap();
                }
            });
        }
    });
    (address, certificate.pem())
}

/// A proxy that connects every tunnel to one server. Returns the requests that it received.
async fn proxy(to: SocketAddr) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let log = Arc::clone(&log);
            tokio::spawn(async move {
                let request = head(&mut client).await.unwrap();
                let known = request.contains("Proxy-Authorization: Basic dTpw\r\n");
                log.lock().unwrap().push(request);
                if !known {
                    let refusal = b"HTTP/1.1 407 Who are you\r\nContent-Length: 0\r\n\r\n";
                    client.write_all(refusal).await.unwrap();
                    return;
                }
                let mut server = TcpStream::connect(to).await.unwrap();
                let answer = b"HTTP/1.1 200 Connected\r\nX: y\r\n\r\n";
                client.write_all(answer).await.unwrap();
                let _ = copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    (address, asked)
}

/// Reads a manifest through a proxy with this user.
async fn ask(user: &str, direct: &[&str]) -> (Result<Vec<u8>, String>, Vec<String>) {
    let (registry, certificate) = registry().await;
    let (proxy, asked) = proxy(registry).await;
    let directory = tempfile::tempdir().unwrap();
    let own = directory.path().join(NAME);
    std::fs::create_dir(&own).unwrap();
    std::fs::write(own.join("ca.crt"), certificate).unwrap();
    let client = Client::new(RegistryOptions {
        certificates: vec![directory.path().to_owned()],
        proxies: Proxies {
            https: Some(format!("http://{user}@{proxy}").parse().unwrap()),
            http: None,
            direct: direct.iter().map(|&entry| entry.to_owned()).collect(),
        },
        deadlines: Deadlines {
            connect: Duration::from_secs(5),
            back_off: Duration::from_millis(1),
            ..Deadlines::default()
        },
        ..RegistryOptions::default()
    });
    let read = async {
        let repository = Repository::open(&client, NAME, "a", RepositoryAccess::Pull, None).await?;
        Ok(repository.manifest("latest", None).await?.bytes)
    };
    let result: Result<_, keelson_registry::RegistryError> = read.await;
    let asked = asked.lock().unwrap().clone();
    (result.map_err(|error| error.to_string()), asked)
}

#[tokio::test]
async fn https_goes_through_a_tunnel() {
    let (result, asked) = ask("u:p", &["other.invalid"]).await;
    assert_eq!(result.unwrap(), b"{}");
    // One connection for all requests. Nothing of them is visible outside of the tunnel.
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert!(
        asked[0].starts_with(&format!("CONNECT {NAME} HTTP/1.1\r\n")),
        "{asked:?}"
    );
    assert!(!asked[0].contains("/v2/"), "{asked:?}");
}

#[tokio::test]
async fn a_proxy_that_refuses_is_named() {
    let (result, asked) = ask("u:wrong", &[]).await;
    let error = result.unwrap_err();
    assert!(error.contains("proxy 127.0.0.1:"), "{error}");
    assert!(error.contains("407"), "{error}");
    assert!(!error.contains("wrong"), "{error}");
    assert!(!asked.is_empty());
}

#[tokio::test]
async fn no_proxy_means_directly() {
    for direct in ["registry.invalid", ".invalid", "*", NAME] {
        let (result, asked) = ask("u:p", &[direct]).await;
        assert!(result.unwrap_err().contains(NAME), "{direct}");
        assert_eq!(asked, Vec::<String>::new(), "{direct}");
    }
}
