//! A typed client: if it can't read an answer, the answer has the wrong shape.

mod common;

use bollard::Docker;
use bollard::models::{ChangeType, ContainerConfig, ContainerCreateBody, HostConfig};
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, CommitContainerOptionsBuilder, CreateContainerOptionsBuilder,
    InspectContainerOptions, ListContainersOptionsBuilder, ListImagesOptionsBuilder,
    LogsOptionsBuilder, PruneImagesOptions, RemoveContainerOptionsBuilder, RemoveImageOptions,
    StartContainerOptions, WaitContainerOptions,
};
use common::Host;
use futures::StreamExt;
use tokio::io::AsyncWriteExt;

fn client(host: &Host) -> Docker {
    Docker::connect_with_unix(
        host.socket().to_str().unwrap(),
        30,
        bollard::API_DEFAULT_VERSION,
    )
    .unwrap()
}

#[tokio::test]
async fn the_whole_life_of_a_container() {
    let Some(host) = Host::with_busybox() else {
        return;
    };
    let docker = client(&host);
    assert_eq!(docker.ping().await.unwrap(), "OK");
    let version = docker.version().await.unwrap();
    assert_eq!(version.api_version.as_deref(), Some("1.51"));
    let info = docker.info().await.unwrap();
    assert_eq!(info.images, Some(1));
    assert_eq!(
        info.swarm.unwrap().local_node_state.unwrap().to_string(),
        "inactive"
    );

    let images = docker
        .list_images(Some(ListImagesOptionsBuilder::new().all(true).build()))
        .await
        .unwrap();
    assert_eq!(images[0].repo_tags, ["busybox:latest"]);
    let image = docker.inspect_image("busybox").await.unwrap();
    assert_eq!(image.id.as_ref(), Some(&images[0].id));
    assert_eq!(docker.image_history("busybox").await.unwrap().len(), 1);

    let options = CreateContainerOptionsBuilder::new().name("typed").build();
    let body = ContainerCreateBody {
        image: Some("busybox".to_owned()),
        cmd: Some(
            ["sh", "-c", "read line; echo got $line; exit 9"]
                .map(str::to_owned)
                .into(),
        ),
        open_stdin: Some(true),
        stdin_once: Some(true),
        attach_stdin: Some(true),
        host_config: Some(HostConfig {
            network_mode: Some("none".to_owned()),
            ..Default::default()
        }),
        ..Default::default()
    };
    let created = docker.create_container(Some(options), body).await.unwrap();
    assert_eq!(created.warnings, Vec::<String>::new());

    let attach = AttachContainerOptionsBuilder::new()
        .stdin(true)
        .stdout(true)
        .stderr(true)
        .stream(true)
        .build();
    let mut attached = docker
        .attach_container("typed", Some(attach))
        .await
        .unwrap();
    let mut waiting = docker.wait_container("typed", None::<WaitContainerOptions>);
    docker
        .start_container("typed", None::<StartContainerOptions>)
        .await
        .unwrap();
    let again = docker
        .start_container("typed", None::<StartContainerOptions>)
        .await;
    assert!(
        matches!(
            again,
            Err(bollard::errors::Error::DockerResponseServerError {
                status_code: 304,
                ..
            })
        ) || again.is_ok(),
        "{again:?}"
    );
    let inspected = docker
        .inspect_container("typed", None::<InspectContainerOptions>)
        .await
        .unwrap();
    let state = inspected.state.unwrap();
    assert_eq!(state.running, Some(true));
    assert_eq!(inspected.name.as_deref(), Some("/typed"));

    attached.input.write_all(b"words\n").await.unwrap();
    let mut output = String::new();
    while let Some(chunk) = attached.output.next().await {
        output.push_str(&chunk.unwrap().to_string());
    }
    assert_eq!(output, "got words\n");
    // A code other than 0 is an error in this client's eyes.
    match waiting.next().await.unwrap() {
        Ok(answer) => assert!(
            answer.status_code == 9 || answer.status_code == 0,
            "{answer:?}"
        ),
        Err(bollard::errors::Error::DockerContainerWaitError { code, .. }) => assert_eq!(code, 9),
        Err(error) => panic!("{error}"),
    }

    let all = ListContainersOptionsBuilder::new()
        .all(true)
        .size(true)
        .build();
    let list = docker.list_containers(Some(all)).await.unwrap();
    assert_eq!(list.len(), 1);
    assert!(
        list[0]
            .status
            .as_deref()
            .unwrap()
            .starts_with("Exited (9) ")
    );
    let logs = LogsOptionsBuilder::new().stdout(true).stderr(true).build();
    let logs: Vec<_> = docker.logs("typed", Some(logs)).collect().await;
    assert_eq!(logs[0].as_ref().unwrap().to_string(), "got words\n");

    let remove = RemoveContainerOptionsBuilder::new().v(true).build();
    docker
        .remove_container("typed", Some(remove))
        .await
        .unwrap();
    let removed = docker
        .remove_image("busybox", None::<RemoveImageOptions>, None)
        .await
        .unwrap();
    assert_eq!(removed[0].untagged.as_deref(), Some("busybox:latest"));
}

#[tokio::test]
async fn images_of_containers() {
    let Some(host) = Host::with_busybox() else {
        return;
    };
    host.docker(&[
        "run",
        "--name=it",
        "--network=none",
        "busybox",
        "touch",
        "/new",
    ])
    .ok();
    let docker = client(&host);
    let changes = docker.container_changes("it").await.unwrap().unwrap();
    assert_eq!(changes.len(), 1);
    assert_eq!(changes[0].path, "/new");
    assert_eq!(changes[0].kind, ChangeType::_1);

    let options = CommitContainerOptionsBuilder::new()
        .container("it")
        .repo("made")
        .tag("1")
        .changes("USER nobody")
        .build();
    let config = ContainerConfig {
        cmd: Some(vec!["ls".to_owned(), "/new".to_owned()]),
        ..Default::default()
    };
    let made = docker.commit_container(options, config).await.unwrap();
    let image = docker.inspect_image("made:1").await.unwrap();
    assert_eq!(image.id.as_ref(), Some(&made.id));
    let config = image.config.unwrap();
    assert_eq!(config.cmd.unwrap(), ["ls", "/new"]);
    assert_eq!(config.user.as_deref(), Some("nobody"));
    assert!(
        image
            .descriptor
            .unwrap()
            .digest
            .unwrap()
            .starts_with("sha256:")
    );

    let list = ListImagesOptionsBuilder::new()
        .shared_size(true)
        .manifests(true)
        .build();
    for image in docker.list_images(Some(list)).await.unwrap() {
        assert!(image.shared_size > 1 << 20, "{image:?}");
        assert_eq!(image.manifests.unwrap().len(), 1);
    }
    let mut archive = Vec::new();
    let mut export = std::pin::pin!(docker.export_container("it"));
    while let Some(piece) = export.next().await {
        archive.extend_from_slice(&piece.unwrap());
    }
    let mut archive = tar::Archive::new(&archive[..]);
    let names = archive.entries().unwrap().map(|entry| {
        let entry = entry.unwrap();
        entry.path().unwrap().into_owned()
    });
    assert!(
        names
            .into_iter()
            .any(|name| name == std::path::Path::new("new"))
    );

    docker
        .remove_image("made:1", None::<RemoveImageOptions>, None)
        .await
        .unwrap();
    let pruned = docker
        .prune_images(None::<PruneImagesOptions>)
        .await
        .unwrap();
    assert_eq!(pruned.space_reclaimed, Some(0));
}
