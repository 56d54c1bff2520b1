//! Container networks on a booted machine: a published page, separate networks, names, networks on the
//! machine's own link, and the same after a reboot.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use qemu_tests::harness::{Disk, Machine};
use qemu_tests::lab::{BOOT_LIMIT, Lab, docker, load_busybox, power_off, shell, until};

/// The port at which the page is published on the machine.
const PORT: u16 = 8080;
/// Where networks get their addresses from.
const SETTINGS: &str = "[engine.networks]\naddress = \"172.30.7.1/24\"\n\
    address_pools = [{ base = \"172.29.0.0/16\", size = 24 }]\n";
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Gets the page from outside the machine.
fn page(machine: &Machine) -> Result<String> {
    let port = machine.port(PORT)?;
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (_, body) = text.split_once("\r\n\r\n").context("no page")?;
    Ok(body.trim().to_owned())
}

fn is_served(machine: &Machine) -> Result<()> {
    until("the page is served", BOOT_LIMIT, || {
        Ok(match page(machine) {
            Ok(body) if body == "shop" => Ok(()),
            Ok(body) => Err(body),
            Err(error) => Err(format!("{error:#}")),
        })
    })
}

/// Checks what `front` sees of the others.
fn relations(machine: &Machine) -> Result<()> {
    let exec = |name: &str, line: &str| machine.docker(&["exec", name, "sh", "-c", line]);
    exec("front", "ping -c1 -W5 store")?.success()?;
    exec("front", "ping -c1 -W5 depot")?.success()?;
    let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    let apart = docker(machine, &["inspect", "--format", format, "apart"])?;
    ensure!(apart.starts_with("172.29."), "address {apart:?}");
    let reached = exec("front", &format!("ping -c1 -W2 {apart}"))?;
    ensure!(
        reached.code != Some(0),
        "the networks are not apart: {reached}"
    );
    let named = exec("front", "ping -c1 -W2 apart")?;
    ensure!(named.code != Some(0), "a name of another network: {named}");
    // QEMU's gateway is outside of the machine.
    exec("front", "ping -c1 -W5 10.0.2.2")?.success()?;
    // It has an address of its own beside the machine's.
    exec("neighbour", "ping -c1 -W5 10.0.2.2")?.success()?;
    Ok(())
}

/// A network on a link of the machine.
struct OnLink {
    driver: &'static str,
    options: &'static [&'static str],
    /// Whether its containers reach each other.
    together: bool,
}

/// Each on a VLAN of its own, which the engine makes on the machine's link.
const ON_LINKS: [OnLink; 7] = [
    on_link("macvlan", &[], true),
    on_link("macvlan", &["macvlan_mode=private"], false),
    on_link("macvlan", &["macvlan_mode=vepa"], false),
    on_link("ipvlan", &[], true),
    on_link("ipvlan", &["ipvlan_flag=private"], false),
    on_link("ipvlan", &["ipvlan_mode=l3"], true),
    on_link("ipvlan", &["ipvlan_mode=l3s"], true),
];

const fn on_link(driver: &'static str, options: &'static [&'static str], together: bool) -> OnLink {
    OnLink {
        driver,
        options,
        together,
    }
}

/// The names of the machine's own links.
fn links(machine: &Machine) -> Result<Vec<String>> {
    let names = shell(machine, &["--network=host"], "ls /sys/class/net")?;
    Ok(names.split_whitespace().map(str::to_owned).collect())
}

fn network_on_link(machine: &Machine, name: &str, driver: &str, options: &[&str]) -> Result<()> {
    let mut words = vec!["network", "create", "-d", driver];
    for option in options {
        words.extend(["-o", option]);
    }
    words.push(name);
    docker(machine, &words)?;
    Ok(())
}

/// What only a kernel with these drivers shows, and only a machine that has an `eth0`, too.
fn networks_on_links(machine: &Machine) -> Result<()> {
    for (index, case) in ON_LINKS.iter().enumerate() {
        let what = format!("{} {:?}", case.driver, case.options);
        let parent = format!("eth0.{}", 40 + index);
        let option = format!("parent={parent}");
        let options = [case.options, &[option.as_str()]].concat();
        network_on_link(machine, "link", case.driver, &options)?;
        let run = ["run", "-d", "--name=first", "--network=link", "busybox"];
        docker(machine, &[&run[..], &["sleep", "1000"]].concat())?;
        let made = links(machine)?;
        ensure!(made.contains(&parent), "{what}: {made:?}");
        // By name; the name is known even where the container is out of reach.
        let script = "test -e /sys/class/net/eth0 && ping -c1 -W2 first";
        let run = ["run", "--rm", "--network=link", "busybox"];
        let seen = machine.docker(&[&run[..], &["sh", "-c", script]].concat())?;
        ensure!(
            seen.stdout.contains("PING first (172.29."),
            "{what}: {seen}"
        );
        ensure!((seen.code == Some(0)) == case.together, "{what}: {seen}");
        docker(machine, &["rm", "-f", "first"])?;
        docker(machine, &["network", "rm", "link"])?;
        let left = links(machine)?;
        ensure!(!left.contains(&parent), "{what}: {left:?}");
    }
    only_one_has_a_passthru_link(machine)
}

fn only_one_has_a_passthru_link(machine: &Machine) -> Result<()> {
    let options = ["macvlan_mode=passthru", "parent=eth0.60"];
    network_on_link(machine, "link", "macvlan", &options)?;
    let run = ["run", "-d", "--name=first", "--network=link", "busybox"];
    docker(machine, &[&run[..], &["sleep", "1000"]].concat())?;
    let address = "cat /sys/class/net/eth0/address";
    let inside = docker(machine, &["exec", "first", "sh", "-c", address])?;
    let address = "cat /sys/class/net/eth0.60/address";
    let outside = shell(machine, &["--network=host"], address)?;
    ensure!(inside == outside, "{inside} is not the link's {outside}");
    let run = ["run", "--rm", "--network=link", "busybox", "true"];
    let second = machine.docker(&run)?;
    ensure!(
        second.code == Some(125) && second.stderr.contains("passthru"),
        "{second}"
    );
    docker(machine, &["rm", "-f", "first"])?;
    docker(machine, &["network", "rm", "link"])?;
    Ok(())
}

#[test]
fn publishing_names_and_separation_work_and_survive_a_reboot() -> Result<()> {
    let Some(lab) = Lab::open()? else {
        return Ok(());
    };
    let _slot = lab.slot()?;
    let (_dir, disk) = lab.own_disk()?;

    let spec = lab.direct("networks")?.disk(Disk::writable(&disk));
    let machine = spec.host_toml(SETTINGS).forward(0, PORT).launch()?;
    machine.wait_api(BOOT_LIMIT)?;
    load_busybox(&machine)?;
    networks_on_links(&machine)?;
    let default = ["network", "inspect", "bridge", "--format"];
    let format = "{{range .IPAM.Config}}{{.Subnet}} {{.Gateway}}{{end}}";
    let default = docker(&machine, &[&default[..], &[format]].concat())?;
    ensure!(default == "172.30.7.0/24 172.30.7.1", "{default}");
    for name in ["one", "two"] {
        docker(&machine, &["network", "create", name])?;
    }
    let lan = ["network", "create", "-d", "macvlan", "-o", "parent=eth0"];
    let addresses = ["--subnet=10.0.2.0/24", "--gateway=10.0.2.2", "lan"];
    docker(&machine, &[&lan[..], &addresses].concat())?;
    let serve = "mkdir -p /www; echo shop > /www/index.html; exec httpd -f -p 80 -h /www";
    let always = ["run", "-d", "--restart=always", "--stop-signal=KILL"];
    for (name, options, command) in [
        (
            "store",
            &["--network=one", "--network-alias=depot"][..],
            "sleep 100000",
        ),
        ("front", &["--network=one", "-p=8080:80"], serve),
        ("apart", &["--network=two"], "sleep 100000"),
        (
            "neighbour",
            &["--network=lan", "--ip=10.0.2.77"],
            "sleep 100000",
        ),
    ] {
        let mut arguments = always.to_vec();
        arguments.extend(["--name", name]);
        arguments.extend(options);
        arguments.extend(["busybox", "sh", "-c", command]);
        docker(&machine, &arguments)?;
    }
    is_served(&machine)?;
    relations(&machine)?;
    let networks = docker(&machine, &["network", "ls", "--format={{.ID}} {{.Name}}"])?;

    power_off(&machine)?;
    drop(machine);

    let spec = lab.direct("networks-again")?.disk(Disk::writable(&disk));
    let machine = spec.host_toml(SETTINGS).forward(0, PORT).launch()?;
    machine.wait_api(BOOT_LIMIT)?;
    is_served(&machine)?;
    relations(&machine)?;
    let after = docker(&machine, &["network", "ls", "--format={{.ID}} {{.Name}}"])?;
    ensure!(after == networks, "{networks}\n{after}");
    Ok(())
}
