//! `hostctl certificate`. The key of a certificate is created here and never leaves; the machine
//! gets a signing request and returns certificates.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use http::Method;
use keelson_model::host_api::{
    CertificateRequest, ClientCertificate, IssuedCertificate, RevocationRequest,
};
use keelson_store::{Durability, file};
use rcgen::{CertificateParams, KeyPair};
use serde::Serialize;

use crate::client::Client;
use crate::error::CtlError;
use crate::options::{CertificateCommand, Format, IssueArgs};
use crate::table;

const PATH: &str = "/host/v1/certificates";

/// The issued certificate, for programs.
#[derive(Serialize)]
struct Issued<'a> {
    name: &'a str,
    role: &'static str,
    /// Directory of key and certificates.
    directory: &'a Path,
}

pub(crate) async fn run(
    client: &Client,
    format: Format,
    command: &CertificateCommand,
) -> Result<String, CtlError> {
    match command {
        CertificateCommand::Issue(args) => issue(client, format, args).await,
        CertificateCommand::List => {
            let list: Vec<ClientCertificate> = client.get(PATH).await?;
            crate::render(format, &list, || table::certificates(&list))
        }
        CertificateCommand::Revoke(args) => {
            let request = RevocationRequest {
                fingerprint: args.fingerprint.clone(),
                serial: args.serial.clone(),
                name: args.name.clone(),
            };
            let path = "/host/v1/certificates/revoke";
            let list: Vec<ClientCertificate> = client.send(Method::POST, path, &request).await?;
            crate::render(format, &list, || table::certificates(&list))
        }
    }
}

async fn issue(client: &Client, format: Format, args: &IssueArgs) -> Result<String, CtlError> {
    let key = prepare(&args.out)?;
    let csr = CertificateParams::default()
        .serialize_request(&key)
        .and_then(|request| request.pem())
        .map_err(CtlError::Key)?;
    let request = CertificateRequest {
        csr,
        name: args.name.clone(),
        role: args.role,
    };
    let issued: IssuedCertificate = client.send(Method::POST, PATH, &request).await?;
    write(args, &key, &issued)?;
    let told = Issued {
        name: &args.name,
        role: args.role.as_str(),
        directory: &args.out,
    };
    crate::render(format, &told, || {
        format!(
            "{} can use the machine as {} with DOCKER_CERT_PATH={}\n",
            told.name,
            told.role,
            args.out.display()
        )
    })
}

/// Makes a new key, unless the directory has one already.
fn prepare(out: &Path) -> Result<KeyPair, CtlError> {
    let path = out.join("key.pem");
    if path.exists() {
        return Err(CtlError::Certificate {
            path,
            reason: "exists already and is not replaced".to_owned(),
        });
    }
    KeyPair::generate().map_err(CtlError::Key)
}

/// The key is written last: if it exists, the directory is complete.
fn write(args: &IssueArgs, key: &KeyPair, issued: &IssuedCertificate) -> Result<(), CtlError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&args.out)
        .map_err(|error| CtlError::Certificate {
            path: args.out.clone(),
            reason: format!("can't be made: {error}"),
        })?;
    let key = key.serialize_pem();
    for (name, text, mode) in [
        ("ca.pem", &issued.ca, 0o644),
        ("cert.pem", &issued.certificate, 0o644),
        ("key.pem", &key, 0o600),
    ] {
        file::write(
            &args.out.join(name),
            text.as_bytes(),
            mode,
            Durability::Flushed,
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        assert!(prepare(dir.path()).is_ok());
        fs::write(dir.path().join("key.pem"), "").unwrap();
        assert!(prepare(dir.path()).is_err());
    }
}
