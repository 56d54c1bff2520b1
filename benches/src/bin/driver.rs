//! Measures one life of a container; executed by the benchmark `runtime`.

fn main() -> anyhow::Result<()> {
    let job = std::env::args().nth(1);
    keelson_benches::driver::main(&job.unwrap_or_default())
}
