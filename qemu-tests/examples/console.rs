//! Boots the image in `KEELSON_IMAGE_DIR` and prints its console with the seconds since QEMU's
//! start, for those who work on the boot:
//! `cargo run -p qemu-tests --example console -- uefi|direct SECONDS [KERNEL-ARGUMENT…]`.
//! Nothing is written to the image. After SECONDS the power button is pressed.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use qemu_tests::lab::{Lab, STOP_LIMIT};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().unwrap_or_default();
    let seconds = arguments.next().context("how many seconds?")?.parse()?;
    let lab = Lab::open()?.context("no image")?;
    let mut spec = match path.as_str() {
        "uefi" => lab.uefi("console"),
        "direct" => lab.direct("console")?,
        other => bail!("{other:?} is neither uefi nor direct"),
    };
    for word in arguments {
        spec = spec.kernel_argument(word);
    }
    let machine = spec.launch()?;
    let mut shown = 0;
    let mut show = || {
        for line in machine.console().lines().iter().skip(shown) {
            println!("[{:7.2}] {}", line.at.as_secs_f64(), line.text);
            shown += 1;
        }
    };
    while machine.elapsed() < Duration::from_secs(seconds) && machine.is_running() {
        machine.wait_for_exit(Duration::from_millis(200)).ok();
        show();
    }
    if machine.is_running() {
        println!("--- pressing the power button");
        machine.qmp()?.system_powerdown()?;
        let end = machine.wait_for_exit(STOP_LIMIT);
        show();
        end?;
    }
    println!("--- {:?}", machine.wait_for_exit(Duration::ZERO)?);
    Ok(())
}
