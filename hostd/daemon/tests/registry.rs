//! `docker pull`, `push` and `login` against a real registry.

mod common;

use std::os::unix::fs::PermissionsExt;

use common::front::{Front, Pems};
use common::registry::{Registry, Wants};
use common::{Host, is_root};

fn image_id(host: &Host, name: &str) -> String {
    host.docker(&["image", "inspect", "-f", "{{.Id}}", name])
        .ok()
}

fn repo_digest(host: &Host, name: &str) -> String {
    let digests = host
        .docker(&[
            "image",
            "inspect",
            "-f",
            "{{join .RepoDigests \" \"}}",
            name,
        ])
        .ok();
    digests.split('@').nth(1).unwrap_or_default().to_owned()
}

#[test]
fn what_is_pushed_can_be_pulled_and_run() {
    if !is_root() {
        return;
    }
    let registry = Registry::start(&Wants::default());
    let host = Host::start();
    host.load_busybox();
    let name = registry.name("team/box:1");
    host.docker(&["tag", "busybox", &name]).ok();
    let id = image_id(&host, &name);
    let pushed = host.docker(&["push", &name]).ok();
    assert!(pushed.contains("Pushed"), "{pushed}");
    let digest = repo_digest(&host, &name);
    assert!(
        pushed.contains(&format!("1: digest: {digest} size:")),
        "{pushed}"
    );
    // Everything is there already.
    let again = host.docker(&["push", &name]).ok();
    assert!(again.contains("Layer already exists"), "{again}");
    assert!(again.contains(&digest), "{again}");
    // Another repository takes the layer over without an upload.
    let other = registry.name("team/other");
    host.docker(&["tag", &name, &other]).ok();
    let mounted = host.docker(&["push", &other]).ok();
    assert!(mounted.contains("Mounted from team/box"), "{mounted}");

    host.docker(&["rmi", "-f", &id]).ok();
    host.docker(&["image", "inspect", &name])
        .fails_with("No such image");
    let pulled = host.docker(&["pull", &name]).ok();
    for line in [
        "1: Pulling from team/box",
        "Pulling fs layer",
        "Download complete",
        "Pull complete",
        &format!("Digest: {digest}"),
        &format!("Status: Downloaded newer image for {name}"),
    ] {
        assert!(pulled.contains(line), "{line}: {pulled}");
    }
    assert_eq!(image_id(&host, &name), id);
    assert_eq!(repo_digest(&host, &name), digest);
    let said = host.docker(&["run", "--rm", "--network=none", &name, "echo", "there"]);
    assert_eq!(said.ok(), "there");
    // A run pulls a missing image.
    host.docker(&["rmi", "-f", &id]).ok();
    let said = host.docker(&["run", "--rm", "--network=none", &name, "echo", "again"]);
    assert_eq!(said.ok(), "again");
    let again = host.docker(&["pull", &name]).ok();
    assert!(
        again.contains(&format!("Status: Image is up to date for {name}")),
        "{again}"
    );
    // A pulled image goes back unchanged, and by digest it is the same image.
    let third = registry.name("third/box:2");
    host.docker(&["tag", &name, &third]).ok();
    let back = host.docker(&["push", &third]).ok();
    assert!(back.contains(&digest), "{back}");
    let by_digest = registry.name(&format!("team/box@{digest}"));
    host.docker(&["pull", &by_digest]).ok();
    assert_eq!(image_id(&host, &by_digest), id);

    // All tags.
    let v2 = registry.name("team/box:v2");
    host.docker(&["tag", &name, &v2]).ok();
    host.docker(&["push", "-a", &registry.name("team/box")])
        .ok();
    host.docker(&["rmi", "-f", &id]).ok();
    host.docker(&["pull", "-a", "-q", &registry.name("team/box")])
        .ok();
    assert_eq!(image_id(&host, &v2), id);
    assert_eq!(image_id(&host, &name), id);

    let (status, body) = host.get(&format!("/v1.44/distribution/{name}/json"));
    assert_eq!(status, 200, "{body}");
    assert!(body.contains(&digest), "{body}");
    assert!(body.contains("\"architecture\""), "{body}");
    let events = host
        .docker(&[
            "events",
            "--since=1h",
            "--until=-1s",
            "--filter=type=image",
            "--format={{.Action}} {{.Actor.ID}} {{.Actor.Attributes.name}}",
        ])
        .ok();
    let repository = registry.name("team/box");
    for line in [
        format!("push {name} {repository}"),
        format!("pull {name} {repository}"),
    ] {
        assert!(events.contains(&line), "{line}: {events}");
    }
}

#[test]
fn what_is_not_there_is_said_in_dockers_words() {
    if !is_root() {
        return;
    }
    let registry = Registry::start(&Wants::default());
    let host = Host::start();
    let name = registry.name("nothing:7");
    host.docker(&["pull", &name])
        .fails_with(&format!("manifest for {name} not found: manifest unknown"));
    let (status, _) = host.http(&format!(
        "POST /v1.44/images/create?fromImage={}&tag=7 HTTP/1.1\r\nHost: x\r\n\
         Content-Length: 0\r\nConnection: close\r\n\r\n",
        registry.name("nothing")
    ));
    assert_eq!(status, 404);
    host.docker(&["push", &name]).fails_with(&format!(
        "An image does not exist locally with the tag: {}\n",
        registry.name("nothing")
    ));
    host.docker(&["pull", "--platform", "windows/amd64", &name])
        .fails_with("only linux is");
    // Nobody listens there.
    host.docker(&["pull", "127.0.0.1:1/a"])
        .fails_with("connection refused");
    host.docker(&["pull", "-q", "Not/Valid:"])
        .fails_with("invalid reference format");
}

#[test]
fn a_registry_with_accounts_wants_a_login() {
    if !is_root() {
        return;
    }
    let registry = Registry::start(&Wants {
        login: true,
        ..Wants::default()
    });
    let host = Host::start();
    host.load_busybox();
    let name = registry.name("private/box");
    host.docker(&["tag", "busybox", &name]).ok();
    host.docker(&["push", &name])
        .fails_with("push access denied");
    host.docker(&["pull", &name]).fails_with(&format!(
        "pull access denied for {name}, repository does not exist or may require 'docker login'"
    ));
    let server = format!("localhost:{}", registry.port);
    let login = |password: &str| {
        host.docker_with(
            &["login", "-u", "keeper", "--password-stdin", &server],
            password.as_bytes(),
        )
    };
    login("wrong").fails_with("failed with status: 401 Unauthorized");
    assert!(login("secret").ok().contains("Login Succeeded"));
    host.docker(&["push", "-q", &name]).ok();
    host.docker(&["rmi", &name]).ok();
    host.docker(&["pull", "-q", &name]).ok();
    assert!(!host.log().contains("secret"), "a password was logged");
}

#[test]
fn tls_needs_a_known_authority() {
    if !is_root() {
        return;
    }
    let key = rcgen::KeyPair::generate().unwrap();
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let certificate = rcgen::CertificateParams::new(names)
        .unwrap()
        .self_signed(&key)
        .unwrap()
        .pem();
    let registry = Registry::start(&Wants {
        tls: Some((certificate.clone(), key.serialize_pem())),
        ..Wants::default()
    });
    let host = Host::start_with(&[
        "--insecure-registry",
        &format!("127.0.0.1:{}", registry.port),
    ]);
    host.load_busybox();
    let name = registry.name("box");
    host.docker(&["tag", "busybox", &name]).ok();
    host.docker(&["push", &name])
        .fails_with("its certificate cannot be verified");
    let directory = host.path().join(format!(
        "config/etc/docker/certs.d/localhost:{}",
        registry.port
    ));
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("ca.crt"), certificate).unwrap();
    host.docker(&["push", "-q", &name]).ok();
    host.docker(&["rmi", &name]).ok();
    host.docker(&["pull", "-q", &name]).ok();
    // Configured as insecure, by this name it needs no authority.
    host.docker(&["pull", "-q", &format!("127.0.0.1:{}/box", registry.port)])
        .ok();
}

#[test]
fn a_registry_may_want_a_certificate_of_its_clients() {
    if !is_root() {
        return;
    }
    let registry = Registry::start(&Wants {
        hidden: true,
        ..Wants::default()
    });
    let pems = Pems::new();
    let front = Front::before(registry.port, &pems);
    let host = Host::start();
    host.load_busybox();
    let server = format!("localhost:{}", front.port);
    let name = format!("{server}/box");
    host.docker(&["tag", "busybox", &name]).ok();
    let directory = host
        .path()
        .join(format!("config/etc/keelson/certs.d/{server}"));
    std::fs::create_dir_all(&directory).unwrap();
    let write = |file: &str, text: &str| std::fs::write(directory.join(file), text).unwrap();
    write("ca.crt", &pems.authority);
    assert_ne!(host.docker(&["push", &name]).code, 0);
    write("client.cert", &pems.client.0);
    host.docker(&["push", &name]).fails_with("client.key");
    write("client.key", &pems.client.1);
    host.docker(&["push", &name]).ok();
    host.docker(&["rmi", &name]).ok();
    host.docker(&["pull", &name]).ok();
}

#[test]
fn the_machine_logs_in_by_itself() {
    if !is_root() {
        return;
    }
    let registry = Registry::start(&Wants {
        login: true,
        ..Wants::default()
    });
    let mut host = Host::start();
    let directory = host.path().join("config/etc/keelson");
    std::fs::create_dir_all(&directory).unwrap();
    // keeper:secret
    let text = format!(
        r#"{{"auths":{{"localhost:{}":{{"auth":"a2VlcGVyOnNlY3JldA=="}}}}}}"#,
        registry.port
    );
    let write = |name: &str| {
        let path = directory.join(name);
        std::fs::write(&path, &text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path
    };
    let usual = write("registry-auth.json");
    host.load_busybox();
    let name = registry.name("box");
    host.docker(&["tag", "busybox", &name]).ok();
    host.docker(&["push", &name]).ok();
    std::fs::remove_file(usual).unwrap();
    host.docker(&["pull", &name])
        .fails_with("pull access denied");
    // Another place, by configuration.
    let other = write("other.json");
    let config = format!("[registries]\nauth_file = \"{}\"\n", other.display());
    std::fs::write(directory.join("host.toml"), config).unwrap();
    host.stop_daemon();
    host.start_daemon();
    host.docker(&["pull", &name]).ok();
    let (status, body) = host.get(&format!("/v1.44/distribution/{name}/json"));
    assert_eq!(status, 200, "{body}");
    assert!(!host.log().contains("secret"), "a password was logged");
}

#[test]
fn a_mirror_is_asked_before_docker_hub() {
    if !is_root() {
        return;
    }
    let registry = Registry::start(&Wants::default());
    // Nobody listens there: it is skipped.
    let mut host = Host::start_with(&["--registry-mirror", "http://127.0.0.1:1"]);
    let directory = host.path().join("config/etc/keelson");
    std::fs::create_dir_all(&directory).unwrap();
    let config = format!(
        "[registries]\nmirrors = [\"http://127.0.0.1:{}\"]\ninsecure = [\"10.0.0.0/8\"]\n",
        registry.port
    );
    std::fs::write(directory.join("host.toml"), config).unwrap();
    host.stop_daemon();
    host.start_daemon();
    host.load_busybox();
    let name = registry.name("library/mirrored");
    host.docker(&["tag", "busybox", &name]).ok();
    host.docker(&["push", "-q", &name]).ok();
    let id = image_id(&host, &name);
    host.docker(&["rmi", "-f", &id]).ok();
    host.docker(&["pull", "mirrored"]).ok();
    assert_eq!(image_id(&host, "mirrored"), id);

    // Without a tag all of them are meant, which the mirror lists. Clients that say latest when people
    // say nothing can't ask for that.
    let second = format!("{name}:second");
    host.docker(&["tag", "mirrored", &second]).ok();
    host.docker(&["push", "-q", &second]).ok();
    host.docker(&["rmi", "-f", &id]).ok();
    let (status, body) = host.http(
        "POST /images/create?fromImage=mirrored HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\
         Connection: close\r\n\r\n",
    );
    assert_eq!(status, 200, "{body}");
    for tag in ["mirrored:latest", "mirrored:second"] {
        assert_eq!(image_id(&host, tag), id, "{body}");
    }
    let (status, body) = host.get("/distribution/mirrored/json");
    assert_eq!(status, 200, "{body}");
    assert!(body.contains("linux"), "{body}");
    let info = host
        .docker(&["info", "-f", "{{json .RegistryConfig}}"])
        .ok();
    assert!(info.contains("10.0.0.0/8"), "{info}");
    assert!(
        info.contains(&format!("127.0.0.1:{}", registry.port)),
        "{info}"
    );
}

#[test]
fn large_layers_are_sent_in_chunks() {
    if !is_root() {
        return;
    }
    let registry = Registry::start(&Wants::default());
    let host = Host::start();
    // Bytes that do not compress: two chunks.
    let mut state = 1_u32;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    })
    .take(18 << 20)
    .collect();
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(noise.len() as u64);
    header.set_mode(0o644);
    archive
        .append_data(&mut header, "noise", noise.as_slice())
        .unwrap();
    let name = registry.name("large");
    host.docker_with(&["import", "-", &name], &archive.into_inner().unwrap())
        .ok();
    let id = image_id(&host, &name);
    host.docker(&["push", &name]).ok();
    host.docker(&["rmi", "-f", &id]).ok();
    host.docker(&["pull", &name]).ok();
    assert_eq!(image_id(&host, &name), id);
}
