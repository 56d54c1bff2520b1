use std::path::PathBuf;

use keelson_log::{Rotation, Stream, Writer};
use tokio::sync::oneshot;

use super::*;

const SECOND: u64 = 1_000_000_000;

fn both() -> LogQuery {
    LogQuery {
        stdout: true,
        stderr: true,
        ..LogQuery::default()
    }
}

fn log() -> (tempfile::TempDir, PathBuf, Writer) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("container.log");
    let limits = Rotation {
        max_size: 1 << 20,
        max_files: 3,
    };
    let writer = Writer::open(&path, limits).unwrap();
    (directory, path, writer)
}

async fn collect(path: &Path, query: LogQuery) -> Vec<(u8, String)> {
    let (sender, mut records) = mpsc::channel(64);
    read(path, query, None, None, &sender).await.unwrap();
    drop(sender);
    let mut result = Vec::new();
    while let Some(batch) = records.recv().await {
        for frame in batch.unwrap().frames() {
            result.push((
                frame.stream,
                String::from_utf8(frame.bytes.to_vec()).unwrap(),
            ));
        }
    }
    result
}

#[tokio::test]
async fn streams_times_and_ranges() {
    let (_directory, path, mut writer) = log();
    writer.append(Stream::Stdout, b"one\n", SECOND).unwrap();
    writer.append(Stream::Stdout, b"tw", 2 * SECOND).unwrap();
    writer.append(Stream::Stdout, b"o\n", 3 * SECOND).unwrap();
    writer.append(Stream::Stderr, b"bad\n", 4 * SECOND).unwrap();
    writer
        .append(Stream::Stdout, b"three\n", 5 * SECOND)
        .unwrap();

    let text = |list: &[(u8, &str)]| -> Vec<(u8, String)> {
        list.iter()
            .map(|(stream, text)| (*stream, (*text).to_owned()))
            .collect()
    };
    assert_eq!(
        collect(&path, both()).await,
        text(&[(1, "one\n"), (1, "two\n"), (2, "bad\n"), (1, "three\n")])
    );
    let query = LogQuery {
        stderr: false,
        ..both()
    };
    assert_eq!(
        collect(&path, query).await,
        text(&[(1, "one\n"), (1, "two\n"), (1, "three\n")])
    );
    let query = LogQuery {
        tail: Some(2),
        ..both()
    };
    assert_eq!(
        collect(&path, query).await,
        text(&[(2, "bad\n"), (1, "three\n")])
    );
    let query = LogQuery {
        since: Some(4 * SECOND),
        ..both()
    };
    assert_eq!(
        collect(&path, query).await,
        text(&[(2, "bad\n"), (1, "three\n")])
    );
    let query = LogQuery {
        until: Some(4 * SECOND),
        stdout: false,
        ..both()
    };
    assert_eq!(collect(&path, query).await, text(&[(2, "bad\n")]));
    let query = LogQuery {
        timestamps: true,
        until: Some(3 * SECOND),
        ..both()
    };
    assert_eq!(
        collect(&path, query).await,
        text(&[
            (1, "1970-01-01T00:00:01.000000000Z one\n"),
            (1, "1970-01-01T00:00:02.000000000Z two\n"),
        ])
    );
}

#[tokio::test]
async fn a_missing_log_is_empty() {
    let directory = tempfile::tempdir().unwrap();
    assert!(
        collect(&directory.path().join("none"), both())
            .await
            .is_empty()
    );
}

#[tokio::test]
async fn following_sees_everything_and_ends_with_the_container() {
    let (directory, path, mut writer) = log();
    writer.append(Stream::Stdout, b"before\n", 1).unwrap();
    let (end, ended) = oneshot::channel();
    let (sender, mut records) = mpsc::channel(4);
    let watch = DirectoryWatch::new(directory.path()).unwrap();
    let query = LogQuery {
        follow: true,
        ..both()
    };
    let follower = tokio::spawn(async move {
        read(&path, query, Some(watch), Some(ended), &sender)
            .await
            .unwrap();
    });
    let first = records.recv().await.unwrap().unwrap();
    assert_eq!(&first.bytes[..], b"before\n");
    // More than fits into one file, so that the follower sees a rotation.
    let line = [b'x'; 1000];
    let mut seen = 0;
    for number in 0..1500_u64 {
        writer.append(Stream::Stdout, &line, number + 2).unwrap();
        if number % 100 == 0 {
            while let Ok(batch) = records.try_recv() {
                seen += batch.unwrap().bytes.len();
            }
            tokio::task::yield_now().await;
        }
    }
    writer.append(Stream::Stdout, b"last\n", 9999).unwrap();
    end.send(crate::WaitResult::default()).unwrap();
    let mut tail = Vec::new();
    while let Some(batch) = records.recv().await {
        for frame in batch.unwrap().frames() {
            seen += frame.bytes.len();
            tail = frame.bytes.to_vec();
        }
    }
    assert!(tail.ends_with(b"last\n"));
    assert_eq!(seen, 1500 * 1000 + 5);
    follower.await.unwrap();
}

#[tokio::test]
async fn a_follower_whose_client_left_ends() {
    let (directory, path, _writer) = log();
    let (_end, ended) = oneshot::channel();
    let (sender, records) = mpsc::channel(4);
    let watch = DirectoryWatch::new(directory.path()).unwrap();
    let query = LogQuery {
        follow: true,
        ..both()
    };
    let follower =
        tokio::spawn(async move { read(&path, query, Some(watch), Some(ended), &sender).await });
    drop(records);
    follower.await.unwrap().unwrap();
}
