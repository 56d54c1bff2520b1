//! `hostctl certificate issue`: the key is made here and stays here; the machine sees a request
//! and answers with certificates.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use http::Method;
use keelson_model::host_api::{CertificateRequest, IssuedCertificate};
use keelson_store::{Durability, file};
use rcgen::{CertificateParams, KeyPair};

use crate::client::Client;
use crate::error::CtlError;
use crate::options::{CertificateCommand, IssueArgs};

pub(crate) async fn run(client: &Client, command: &CertificateCommand) -> Result<String, CtlError> {
    let CertificateCommand::Issue(args) = command;
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
    let issued: IssuedCertificate = client
        .send(Method::POST, "/host/v1/certificates", &request)
        .await?;
    write(args, &key, &issued)?;
    Ok(format!(
        "{} can use the machine as {} with DOCKER_CERT_PATH={}\n",
        args.name,
        args.role.as_str(),
        args.out.display()
    ))
}

/// A new key, unless the folder holds one already.
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

/// The key comes last: its presence says that the folder is complete.
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
