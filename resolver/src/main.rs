//! The name server of containers.

fn main() -> anyhow::Result<()> {
    anyhow::bail!("not built yet")
}
