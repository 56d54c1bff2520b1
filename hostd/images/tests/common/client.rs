//! A store that acts as a client of registries.

use std::time::Duration;

use hostd_images::{
    Deadlines, ImageError, ImageStore, ImageStoreOptions, LayerLimits, Progress, PullOptions,
    Pulled, Pushed, RegistryOptions,
};
use tokio::sync::mpsc;

use super::Fixture;

/// A store with short time limits.
pub(crate) fn fixture(change: impl FnOnce(&mut RegistryOptions)) -> Fixture {
    let mut fixture = Fixture::new(false);
    let mut registries = RegistryOptions {
        certificates: Vec::new(),
        deadlines: Deadlines {
            connect: Duration::from_secs(5),
            answer: Duration::from_secs(5),
            stall: Duration::from_millis(300),
            attempts: 3,
            back_off: Duration::from_millis(5),
            longest_wait: Duration::from_millis(50),
        },
        ..RegistryOptions::default()
    };
    change(&mut registries);
    fixture.store = None;
    let options = ImageStoreOptions {
        directories: false,
        limits: LayerLimits {
            bytes: 4 << 20,
            ..LayerLimits::default()
        },
        registries,
        ..ImageStoreOptions::default()
    };
    fixture.store = Some(ImageStore::open_with(&fixture.root(), &fixture.run(), options).unwrap());
    fixture
}

pub(crate) async fn pull_with(
    fixture: &Fixture,
    name: &str,
    options: PullOptions,
) -> (Result<Pulled, ImageError>, Vec<Progress>) {
    let (sender, steps) = mpsc::channel(64);
    let steps = tokio::spawn(collect(steps));
    let result = fixture.store().pull(name, options, sender).await;
    (result, steps.await.unwrap())
}

pub(crate) async fn pull(fixture: &Fixture, name: &str) -> Result<Pulled, ImageError> {
    pull_with(fixture, name, PullOptions::default()).await.0
}

/// Bytes that do not compress.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    })
    .take(length)
    .collect()
}

async fn collect(mut steps: mpsc::Receiver<Progress>) -> Vec<Progress> {
    let mut all = Vec::new();
    while let Some(step) = steps.recv().await {
        all.push(step);
    }
    all
}

/// Pushes one tag.
pub(crate) async fn push_with(
    fixture: &Fixture,
    name: &str,
) -> (Result<Pushed, ImageError>, Vec<Progress>) {
    let (sender, steps) = mpsc::channel(64);
    let steps = tokio::spawn(collect(steps));
    let pushed = fixture.store().push(name, None, sender).await;
    let pushed = pushed.map(|mut all| all.remove(0));
    (pushed, steps.await.unwrap())
}

pub(crate) async fn push(fixture: &Fixture, name: &str) -> Result<Pushed, ImageError> {
    push_with(fixture, name).await.0
}
