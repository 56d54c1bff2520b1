//! Network namespaces of a test: the machine of a hostd, and neighbours on the same wire.

use std::process::{Child, Command, Stdio};

use super::{Done, run, wait_until};

/// A network namespace with its loopback link up. It is removed on drop.
pub struct Net {
    holder: Child,
}

impl Net {
    pub fn new() -> Self {
        let holder = Command::new("unshare")
            .args(["--net", "--", "sh", "-c"])
            .arg("ip link set lo up && exec sleep 100000")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let net = Self { holder };
        wait_until("the namespace is there", || {
            let comm = std::fs::read(format!("/proc/{}/comm", net.holder.id()));
            comm.is_ok_and(|comm| comm == b"sleep\n")
        });
        net
    }

    /// A neighbour: a namespace whose link `wire` is connected to this one's link `outer`, with the
    /// addresses 192.0.2.2/24 and 192.0.2.1/24, and 2001:db8::2/64 and 2001:db8::1/64.
    pub fn neighbour(&self) -> Self {
        let other = Self::new();
        let there = other.holder.id().to_string();
        self.sh(&format!(
            "ip link add outer type veth peer name wire netns {there} && ip link set outer up &&
             ip addr add 192.0.2.1/24 dev outer && ip addr add 2001:db8::1/64 dev outer nodad"
        ))
        .ok();
        other
            .sh("ip link set wire up && ip addr add 192.0.2.2/24 dev wire &&
                 ip addr add 2001:db8::2/64 dev wire nodad")
            .ok();
        other
    }

    /// The path by which the namespace is entered.
    pub fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.holder.id())
    }

    /// A command in the namespace.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", self.path()))
            .arg("--")
            .arg(program);
        command
    }

    /// Runs a line of shell in the namespace to its end.
    #[track_caller]
    pub fn sh(&self, line: &str) -> Done {
        run(self.command("sh").args(["-c", line]), b"")
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
