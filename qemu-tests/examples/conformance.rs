//! Runs the conformance cases in a virtual machine with this machine's runc and crun beside our
//! runtime, and writes the results for `conformance --elsewhere`:
//! `cargo run -p qemu-tests --example conformance -- FILE [ARGUMENT…]`. The image is the one in
//! `KEELSON_IMAGE_DIR`, the runtime and the cases are those in `KEELSON_BIN_DIR`.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use qemu_tests::lab::{BOOT_LIMIT, Lab, conformance, load_conformance, with_libraries};

/// Between the table and the JSON on standard output.
const MARK: &str = "[\n  {\n";

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let file = arguments.next().context("which file to write?")?;
    let rest: Vec<String> = arguments.collect();
    let lab = Lab::open()?.context("no image")?;
    let machine = lab.direct("conformance")?.memory_mib(2048).launch()?;
    machine.wait_api(BOOT_LIMIT)?;

    let mut others = Vec::new();
    let mut words = Vec::new();
    for path in ["/usr/sbin/runc", "/usr/bin/crun"].map(Path::new) {
        if path.is_file() {
            others.extend(with_libraries(path)?);
            words.extend(["--runtime".to_owned(), path.display().to_string()]);
        }
    }
    load_conformance(&machine, &others)?;
    words.extend(["--runtime", "/bin/keelson-runtime", "--json", "/dev/stdout"].map(str::to_owned));
    words.extend(rest);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let output = conformance(&machine, &words, Duration::from_secs(3600))?;
    let at = output.stdout.find(MARK);
    let (table, json) = output
        .stdout
        .split_at(at.with_context(|| output.to_string())?);
    println!("{table}{}", output.stderr);
    std::fs::write(&file, json).with_context(|| format!("write {file}"))
}
